//! Processes on a device: asked twice, first for how many, then with a buffer that must be large enough.

use std::ffi::{c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::*;

use crate::live::{answer, device, undercounts, write_value};
use crate::state::{Device, Process};

fn list(
    function: &str,
    handle: nvmlDevice_t,
    count: *mut c_uint,
    infos: *mut nvmlProcessInfo_t,
    of: fn(&Device) -> &Vec<Process>,
) -> nvmlReturn_t {
    answer(|| {
        let found = device(function, handle)?;
        let processes = of(found.get());
        if count.is_null() {
            return Err(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
        }
        // SAFETY: not null, and the caller says that it points to a number.
        let room = unsafe { *count } as usize;
        let asks_for_length = infos.is_null() || room == 0;
        if asks_for_length && processes.len() > 1 && undercounts(&found) {
            write_value(count, 1)?;
            return Err(nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE);
        }
        write_value(count, processes.len() as c_uint)?;
        if room < processes.len() || (infos.is_null() && !processes.is_empty()) {
            return Err(nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE);
        }
        for (place, process) in processes.iter().enumerate() {
            let info = nvmlProcessInfo_t {
                pid: process.pid,
                usedGpuMemory: process.memory.unwrap_or(c_ulonglong::MAX),
                gpuInstanceId: c_uint::MAX,
                computeInstanceId: c_uint::MAX,
            };
            // SAFETY: the caller says that there is room for `room` infos, and `place` is below it.
            unsafe { infos.add(place).write(info) };
        }
        Ok(())
    })
}

macro_rules! processes {
    ($name:ident, $field:ident) => {
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            handle: nvmlDevice_t,
            count: *mut c_uint,
            infos: *mut nvmlProcessInfo_t,
        ) -> nvmlReturn_t {
            list(stringify!($name), handle, count, infos, |d| &d.$field)
        }
    };
}

// The second and third forms share one layout.
processes!(nvmlDeviceGetComputeRunningProcesses_v2, processes);
processes!(nvmlDeviceGetComputeRunningProcesses_v3, processes);
processes!(nvmlDeviceGetGraphicsRunningProcesses_v2, graphics_processes);
processes!(nvmlDeviceGetGraphicsRunningProcesses_v3, graphics_processes);
processes!(nvmlDeviceGetMPSComputeRunningProcesses_v2, mps_processes);
processes!(nvmlDeviceGetMPSComputeRunningProcesses_v3, mps_processes);
