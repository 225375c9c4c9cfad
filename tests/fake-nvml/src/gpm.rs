//! GPU performance monitoring: metrics over the time between two samples of one device.

use std::ffi::c_uint;
use std::time::Instant;

use nvml_wrapper_sys::bindings::*;

use crate::live::{self, answer, device, write_value};

/// What a sample holds once it was taken: the device, when, and the SM activity up to then.
#[derive(Default)]
struct Sample(Option<(usize, Instant, f64)>);

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmQueryDeviceSupport(
    handle: nvmlDevice_t,
    support: *mut nvmlGpmSupport_t,
) -> nvmlReturn_t {
    answer(|| {
        let found = device("nvmlGpmQueryDeviceSupport", handle)?;
        // SAFETY: read only where not null; the caller says that it points to the struct.
        if support.is_null() || unsafe { (*support).version } != NVML_GPM_SUPPORT_VERSION {
            return Err(nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
        }
        let isSupportedDevice = c_uint::from(found.get().gpm);
        write_value(support, nvmlGpmSupport_t { version: NVML_GPM_SUPPORT_VERSION, isSupportedDevice })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmSampleAlloc(sample: *mut nvmlGpmSample_t) -> nvmlReturn_t {
    answer(|| {
        live::system("nvmlGpmSampleAlloc")?;
        write_value(sample, Box::into_raw(Box::<Sample>::default()).cast())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmSampleFree(sample: nvmlGpmSample_t) -> nvmlReturn_t {
    if sample.is_null() {
        return nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;
    }
    // SAFETY: the caller gives back what nvmlGpmSampleAlloc gave, once.
    drop(unsafe { Box::from_raw(sample.cast::<Sample>()) });
    nvmlReturn_enum_NVML_SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmSampleGet(handle: nvmlDevice_t, sample: nvmlGpmSample_t) -> nvmlReturn_t {
    answer(|| {
        let found = device("nvmlGpmSampleGet", handle)?;
        if !found.get().gpm || found.get().mig == Some(true) {
            return Err(nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED);
        }
        // SAFETY: the caller gives what nvmlGpmSampleAlloc gave, and uses it from one thread.
        let sample = unsafe { sample.cast::<Sample>().as_mut() }.ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?;
        sample.0 = Some((found.index, Instant::now(), found.get().sm_activity));
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlGpmMetricsGet(request: *mut nvmlGpmMetricsGet_t) -> nvmlReturn_t {
    answer(|| {
        live::system("nvmlGpmMetricsGet")?;
        // SAFETY: the caller says that it points to the struct.
        let request = unsafe { request.as_mut() }.ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)?;
        if request.version != NVML_GPM_METRICS_GET_VERSION {
            return Err(nvmlReturn_enum_NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
        }
        // SAFETY: the caller gives what nvmlGpmSampleAlloc gave.
        let (first, second) =
            unsafe { (request.sample1.cast::<Sample>().as_ref(), request.sample2.cast::<Sample>().as_ref()) };
        let taken = |s: Option<&Sample>| s.and_then(|s| s.0).ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
        let ((device1, at1, _), (device2, at2, activity)) = (taken(first)?, taken(second)?);
        if device1 != device2 || at1 >= at2 {
            return Err(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT);
        }
        let wanted = request.numMetrics as usize;
        for metric in request.metrics.get_mut(..wanted).ok_or(nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT)? {
            let known = metric.metricId == nvmlGpmMetricId_t_NVML_GPM_METRIC_SM_UTIL;
            metric.nvmlReturn =
                if known { nvmlReturn_enum_NVML_SUCCESS } else { nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED };
            metric.value = if known { activity } else { 0.0 };
        }
        Ok(())
    })
}
