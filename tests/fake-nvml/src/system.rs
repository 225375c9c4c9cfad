//! Functions that are not about one device, and those that find one.

use std::ffi::{CStr, c_char, c_int, c_uint};

use nvml_wrapper_sys::bindings::*;

use crate::live::{self, answer, write_text, write_value};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    live::initialise()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> nvmlReturn_t {
    live::initialise()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    live::shut_down()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlErrorString(code: nvmlReturn_t) -> *const c_char {
    let text: &CStr = match code {
        0 => c"Success",
        1 => c"Uninitialized",
        2 => c"Invalid Argument",
        3 => c"Not Supported",
        4 => c"Insufficient Permissions",
        6 => c"Not Found",
        7 => c"Insufficient Size",
        9 => c"Driver Not Loaded",
        10 => c"Timeout",
        12 => c"NVML Shared Library Not Found",
        13 => c"Function Not Found",
        15 => c"GPU is lost",
        _ => c"Unknown Error",
    };
    text.as_ptr()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> nvmlReturn_t {
    answer(|| write_text(&live::system("nvmlSystemGetDriverVersion")?.driver_version, version, length))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint) -> nvmlReturn_t {
    answer(|| write_text(&live::system("nvmlSystemGetNVMLVersion")?.nvml_version, version, length))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion(version: *mut c_int) -> nvmlReturn_t {
    answer(|| write_value(version, live::system("nvmlSystemGetCudaDriverVersion")?.cuda_version))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> nvmlReturn_t {
    answer(|| write_value(version, live::system("nvmlSystemGetCudaDriverVersion_v2")?.cuda_version))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> nvmlReturn_t {
    answer(|| write_value(count, live::system("nvmlDeviceGetCount_v2")?.devices.len() as c_uint))
}

/// A handle is the device's index plus one.
fn handle(index: usize) -> nvmlDevice_t {
    (index + 1) as nvmlDevice_t
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut nvmlDevice_t) -> nvmlReturn_t {
    answer(|| {
        let found = handle(index as usize);
        live::device("nvmlDeviceGetHandleByIndex_v2", found)?;
        write_value(device, found)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: *mut nvmlDevice_t) -> nvmlReturn_t {
    answer(|| {
        if uuid.is_null() {
            return Err(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
        }
        // SAFETY: not null, and the caller says that it is a C string.
        let wanted = unsafe { CStr::from_ptr(uuid) }.to_string_lossy();
        let state = live::system("nvmlDeviceGetHandleByUUID")?;
        let index = state.devices.iter().position(|d| d.uuid == wanted);
        write_value(device, handle(index.ok_or(nvmlReturn_enum_NVML_ERROR_NOT_FOUND)?))
    })
}
