//! Event sets: each remembers how far in the state's list of XIDs it is, from where it was when a device was registered.

use std::collections::BTreeMap;
use std::ffi::{c_uint, c_ulonglong};
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings::*;

use crate::live::{self, answer, device, write_value};

/// For each registered device, how many of the state's XIDs it is past.
#[derive(Default)]
struct Set {
    past: BTreeMap<usize, usize>,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetCreate(set: *mut nvmlEventSet_t) -> nvmlReturn_t {
    answer(|| {
        live::system("nvmlEventSetCreate")?;
        write_value(set, Box::into_raw(Box::<Set>::default()).cast())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetFree(set: nvmlEventSet_t) -> nvmlReturn_t {
    if set.is_null() {
        return nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;
    }
    // SAFETY: the caller gives back what nvmlEventSetCreate gave, once.
    drop(unsafe { Box::from_raw(set.cast::<Set>()) });
    nvmlReturn_enum_NVML_SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceRegisterEvents(
    handle: nvmlDevice_t,
    _types: c_ulonglong,
    set: nvmlEventSet_t,
) -> nvmlReturn_t {
    answer(|| {
        let found = device("nvmlDeviceRegisterEvents", handle)?;
        // SAFETY: the caller gives what nvmlEventSetCreate gave, and uses it from one thread.
        let set = unsafe { set.cast::<Set>().as_mut() }.ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?;
        set.past.insert(found.index, found.state.xids.len());
        Ok(())
    })
}

fn next(set: &mut Set) -> Result<Option<nvmlEventData_t>, nvmlReturn_t> {
    let state = live::system("nvmlEventSetWait_v2")?;
    for (&device, past) in &mut set.past {
        while let Some(event) = state.xids.get(*past) {
            *past += 1;
            if event.device == device {
                return Ok(Some(nvmlEventData_t {
                    device: (device + 1) as nvmlDevice_t,
                    eventType: c_ulonglong::from(nvmlEventTypeXidCriticalError),
                    eventData: event.xid,
                    gpuInstanceId: c_uint::MAX,
                    computeInstanceId: c_uint::MAX,
                }));
            }
        }
    }
    Ok(None)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlEventSetWait_v2(
    set: nvmlEventSet_t,
    data: *mut nvmlEventData_t,
    timeout_ms: c_uint,
) -> nvmlReturn_t {
    answer(|| {
        // SAFETY: the caller gives what nvmlEventSetCreate gave, and uses it from one thread.
        let set = unsafe { set.cast::<Set>().as_mut() }.ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?;
        let end = Instant::now() + Duration::from_millis(timeout_ms.into());
        loop {
            if let Some(event) = next(set)? {
                return write_value(data, event);
            }
            if Instant::now() >= end {
                return Err(nvmlReturn_enum_NVML_ERROR_TIMEOUT);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    })
}
