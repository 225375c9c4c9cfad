//! How GPUs are joined: by the system's bus alone, which is what NVIDIA's device plugin asks for before it gives some out together.

use std::ffi::c_uint;

use nvml_wrapper_sys::bindings::*;

use crate::live::{answer, device, write_value};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTopologyCommonAncestor(
    one: nvmlDevice_t,
    other: nvmlDevice_t,
    level: *mut nvmlGpuTopologyLevel_t,
) -> nvmlReturn_t {
    answer(|| {
        device("nvmlDeviceGetTopologyCommonAncestor", one)?;
        device("nvmlDeviceGetTopologyCommonAncestor", other)?;
        write_value(level, nvmlGpuLevel_enum_NVML_TOPOLOGY_SYSTEM)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetNvLinkState(
    handle: nvmlDevice_t,
    _link: c_uint,
    _active: *mut nvmlEnableState_t,
) -> nvmlReturn_t {
    answer(|| {
        device("nvmlDeviceGetNvLinkState", handle)?;
        Err(nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED)
    })
}
