//! Readings of one device.

use std::ffi::{c_char, c_int, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::*;

use crate::live::{answer, device, write_text, write_value};
use crate::state::Device;

const NOT_SUPPORTED: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED;

/// A function that writes one number of a device.
macro_rules! number {
    ($name:ident, $int:ty, $read:expr) => {
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(handle: nvmlDevice_t, value: *mut $int) -> nvmlReturn_t {
            answer(|| {
                let found = device(stringify!($name), handle)?;
                let read: fn(&Device, usize) -> Result<$int, nvmlReturn_t> = $read;
                write_value(value, read(found.get(), found.index)?)
            })
        }
    };
}

number!(nvmlDeviceGetIndex, c_uint, |_, index| Ok(index as c_uint));
number!(nvmlDeviceGetMinorNumber, c_uint, |_, index| Ok(index as c_uint));
number!(nvmlDeviceGetPowerUsage, c_uint, |d, _| Ok(d.power_mw));
number!(nvmlDeviceGetArchitecture, c_uint, |d, _| Ok(d.architecture));
number!(nvmlDeviceGetCurrentClocksThrottleReasons, c_ulonglong, |d, _| Ok(d.throttle_reasons));
number!(nvmlDeviceGetCurrentClocksEventReasons, c_ulonglong, |d, _| Ok(d.throttle_reasons));
number!(nvmlDeviceGetSupportedEventTypes, c_ulonglong, |_, _| Ok(c_ulonglong::from(nvmlEventTypeAll)));
number!(nvmlDeviceGetRetiredPagesPendingStatus, c_uint, |d, _| {
    d.retired_pages_pending.map(c_uint::from).ok_or(NOT_SUPPORTED)
});
number!(nvmlDeviceGetUtilizationRates, nvmlUtilization_t, |d, _| {
    if d.mig == Some(true) {
        return Err(NOT_SUPPORTED);
    }
    Ok(nvmlUtilization_t { gpu: d.utilization, memory: d.memory_utilization })
});
// The first form counts what the driver keeps for itself as used, the second does not.
number!(nvmlDeviceGetMemoryInfo, nvmlMemory_t, |d, _| {
    let used = d.memory_used + d.memory_reserved;
    Ok(nvmlMemory_t { total: d.memory_total, free: d.memory_total - used, used })
});

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    handle: nvmlDevice_t,
    memory: *mut nvmlMemory_v2_t,
) -> nvmlReturn_t {
    answer(|| {
        let found = device("nvmlDeviceGetMemoryInfo_v2", handle)?;
        let d = found.get();
        let wanted = (size_of::<nvmlMemory_v2_t>() | (2 << 24)) as c_uint;
        // SAFETY: read only where not null; the caller says that it points to the struct.
        if memory.is_null() || unsafe { (*memory).version } != wanted {
            return Err(nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
        }
        let free = d.memory_total - d.memory_used - d.memory_reserved;
        let (total, reserved, used) = (d.memory_total, d.memory_reserved, d.memory_used);
        write_value(memory, nvmlMemory_v2_t { version: wanted, total, reserved, free, used })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(handle: nvmlDevice_t, name: *mut c_char, length: c_uint) -> nvmlReturn_t {
    answer(|| write_text(&device("nvmlDeviceGetName", handle)?.get().name, name, length))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(handle: nvmlDevice_t, uuid: *mut c_char, length: c_uint) -> nvmlReturn_t {
    answer(|| write_text(&device("nvmlDeviceGetUUID", handle)?.get().uuid, uuid, length))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetSerial(
    handle: nvmlDevice_t,
    serial: *mut c_char,
    length: c_uint,
) -> nvmlReturn_t {
    answer(|| {
        device("nvmlDeviceGetSerial", handle)?;
        write_text("1234567890123", serial, length)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(handle: nvmlDevice_t, pci: *mut nvmlPciInfo_t) -> nvmlReturn_t {
    answer(|| {
        let found = device("nvmlDeviceGetPciInfo_v3", handle)?;
        let slot = 6 + found.index as c_uint;
        let mut info = nvmlPciInfo_t {
            busIdLegacy: [0; 16],
            domain: 0,
            bus: 0,
            device: slot,
            pciDeviceId: 0x2330_10DE,
            pciSubSystemId: 0x16C1_10DE,
            busId: [0; 32],
        };
        write_text(&format!("0000:00:{slot:02X}.0"), info.busIdLegacy.as_mut_ptr(), 16)?;
        write_text(&format!("00000000:00:{slot:02X}.0"), info.busId.as_mut_ptr(), 32)?;
        write_value(pci, info)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperature(
    handle: nvmlDevice_t,
    _sensor: c_uint,
    celsius: *mut c_uint,
) -> nvmlReturn_t {
    answer(|| write_value(celsius, device("nvmlDeviceGetTemperature", handle)?.get().temperature))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCudaComputeCapability(
    handle: nvmlDevice_t,
    major: *mut c_int,
    minor: *mut c_int,
) -> nvmlReturn_t {
    answer(|| {
        let (high, low) = device("nvmlDeviceGetCudaComputeCapability", handle)?.get().compute_capability;
        write_value(major, high)?;
        write_value(minor, low)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMigMode(
    handle: nvmlDevice_t,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> nvmlReturn_t {
    answer(|| {
        let on = device("nvmlDeviceGetMigMode", handle)?.get().mig.map(c_uint::from).ok_or(NOT_SUPPORTED)?;
        write_value(current, on)?;
        write_value(pending, on)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    handle: nvmlDevice_t,
    kind: c_uint,
    _counter: c_uint,
    count: *mut c_ulonglong,
) -> nvmlReturn_t {
    answer(|| {
        let found = device("nvmlDeviceGetTotalEccErrors", handle)?;
        let uncorrected = kind == nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_UNCORRECTED;
        write_value(count, if uncorrected { found.get().ecc_uncorrected } else { found.get().ecc_corrected })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetRemappedRows(
    handle: nvmlDevice_t,
    correctable: *mut c_uint,
    uncorrectable: *mut c_uint,
    pending: *mut c_uint,
    failed: *mut c_uint,
) -> nvmlReturn_t {
    answer(|| {
        let rows = device("nvmlDeviceGetRemappedRows", handle)?.get().remapped_rows;
        write_value(correctable, rows[0])?;
        write_value(uncorrectable, rows[1])?;
        write_value(pending, rows[2])?;
        write_value(failed, rows[3])
    })
}

fn field(device: &Device, id: c_uint) -> Result<c_uint, nvmlReturn_t> {
    match id {
        field_id::NVML_FI_DEV_REMAPPED_COR => Ok(device.remapped_rows[0]),
        field_id::NVML_FI_DEV_REMAPPED_UNC => Ok(device.remapped_rows[1]),
        field_id::NVML_FI_DEV_REMAPPED_PENDING => Ok(device.remapped_rows[2]),
        field_id::NVML_FI_DEV_REMAPPED_FAILURE => Ok(device.remapped_rows[3]),
        field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION => device.recovery_action.ok_or(NOT_SUPPORTED),
        _ => Err(NOT_SUPPORTED),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFieldValues(
    handle: nvmlDevice_t,
    count: c_int,
    values: *mut nvmlFieldValue_t,
) -> nvmlReturn_t {
    answer(|| {
        let found = device("nvmlDeviceGetFieldValues", handle)?;
        if values.is_null() || count < 1 {
            return Err(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
        }
        // SAFETY: not null, and the caller says that it points to `count` values.
        for value in unsafe { std::slice::from_raw_parts_mut(values, count as usize) } {
            value.valueType = nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT;
            value.nvmlReturn = match field(found.get(), value.fieldId) {
                Ok(number) => {
                    value.value.uiVal = number;
                    nvmlReturn_enum_NVML_SUCCESS
                }
                Err(code) => code,
            };
        }
        Ok(())
    })
}
