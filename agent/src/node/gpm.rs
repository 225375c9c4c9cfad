//! SM activity through NVML's GPU performance monitoring: Hopper and later, where the driver says yes.
//!
//! A figure is taken between two samples, so the sampler keeps the last one. `utilization.gpu` says in how much of the time
//! any kernel ran, one of a single block as well; SM activity says how much of the GPU had work (an H100 under a stream of tiny
//! kernels: 35% and 11%).

use nvml_wrapper::enums::gpm::GpmMetricId;
use nvml_wrapper::gpm::gpm_metrics_get;
use nvml_wrapper::{Device, GpmSample, Nvml};

use crate::node::nvml::{Fault, ask};
use crate::node::watch::CallWatch;

/// SM activity of one device.
pub enum SmActivity<'n> {
    /// Not on this GPU or driver.
    Unsupported,
    /// Measured since the sample that is kept; none where the last one failed.
    Since(Option<GpmSample<'n>>),
}

impl<'n> SmActivity<'n> {
    /// Asks whether the device has it, and takes the first sample.
    pub fn open(watch: &CallWatch, device: &Device<'n>) -> Result<Self, Fault> {
        match ask(watch, "nvmlGpmQueryDeviceSupport", || device.gpm_support())? {
            Some(true) => Ok(Self::Since(sample(watch, device)?)),
            _ => Ok(Self::Unsupported),
        }
    }

    /// Percent since the last call, 0 to 100; none where it can't be told.
    pub fn measure(&mut self, watch: &CallWatch, nvml: &'n Nvml, device: &Device<'n>) -> Result<Option<u8>, Fault> {
        let Self::Since(last) = self else { return Ok(None) };
        let before = last.take();
        let Some(now) = sample(watch, device)? else { return Ok(None) };
        let percent = match &before {
            Some(before) => {
                ask(watch, "nvmlGpmMetricsGet", || gpm_metrics_get(nvml, before, &now, &[GpmMetricId::SmUtil]))?
                    .and_then(|metrics| metrics.into_iter().next()?.ok())
                    .and_then(|metric| percent(metric.value))
            }
            None => None,
        };
        *last = Some(now);
        Ok(percent)
    }
}

fn sample<'n>(watch: &CallWatch, device: &Device<'n>) -> Result<Option<GpmSample<'n>>, Fault> {
    ask(watch, "nvmlGpmSampleGet", || device.gpm_sample())
}

/// GPM's figure in whole percent; none where it is no number.
fn percent(value: f64) -> Option<u8> {
    value.is_finite().then(|| value.round().clamp(0.0, 100.0) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_whole_percent_and_no_number_is_unknown() {
        assert_eq!(percent(59.26), Some(59));
        assert_eq!(percent(0.02), Some(0));
        assert_eq!(percent(100.4), Some(100));
        assert_eq!(percent(-0.1), Some(0));
        assert_eq!(percent(f64::NAN), None);
        assert_eq!(percent(f64::INFINITY), None);
    }
}
