//! One life of the driver: its GPUs are found, then read in turns until the driver goes, a lost GPU is to be looked for, or
//! the sampler stops. On the NVML thread.

use std::time::Instant;

use nvml_wrapper::Nvml;
use protocol::node::DriverState;

use crate::node::device::OpenDevice;
use crate::node::known::Known;
use crate::node::nvml::{Fault, ask};
use crate::node::sampler::{Backoff, Shared};

/// Why a life of the driver ended.
#[derive(Debug)]
pub enum End {
    /// The sampler stops.
    Stopped,
    /// The driver is gone.
    Driver(String),
    /// A GPU is lost: only a driver that is opened anew can find it again.
    LookAgain,
}

/// Reads until the end. `lost` says how long a lost GPU is left alone.
pub fn run(nvml: &Nvml, shared: &Shared, known: &mut Known, lost: &mut Backoff) -> End {
    let watch = &shared.watch;
    let version = match ask(watch, "nvmlSystemGetDriverVersion", || nvml.sys_driver_version()) {
        Ok(version) => version.unwrap_or_else(|| "unknown".into()),
        Err(fault) => return End::Driver(cause(fault)),
    };
    let mut devices = match open_all(nvml, shared, known) {
        Ok(devices) => devices,
        Err(cause) => return End::Driver(cause),
    };
    let interval = shared.config.interval;
    // The first turn is one interval away: activity is measured over the time since the GPUs were opened.
    let mut next = Instant::now() + interval;
    let mut slow_due = Instant::now();
    let mut look_again = None;
    loop {
        let listen = Instant::now() + shared.config.xid_interval;
        if shared.stopped_before(listen.min(next)) {
            return End::Stopped;
        }
        let ready = || DriverState::Ready { version: version.clone() };
        let now = Instant::now();
        if now < next {
            match listen_to(&mut devices, shared, known) {
                Ok(true) => shared.publisher.publish(ready(), known.reports()),
                Ok(false) => {}
                Err(cause) => return End::Driver(cause),
            }
            continue;
        }
        let slow = now >= slow_due;
        if slow {
            slow_due = now + shared.config.slow_interval;
        }
        for device in &mut devices {
            if let Err(cause) = device.turn(watch, slow) {
                return End::Driver(cause);
            }
            known.keep(device.report.clone(), device.sick_xid());
        }
        shared.publisher.publish(ready(), known.reports());
        if known.any_lost() {
            let at = *look_again.get_or_insert_with(|| now + lost.next());
            if now >= at {
                return End::LookAgain;
            }
        } else {
            lost.reset();
        }
        // A turn that took longer than the interval is not made up for.
        next = (next + interval).max(Instant::now());
    }
}

/// Whether the driver told of an XID of any of them.
fn listen_to(devices: &mut [OpenDevice<'_>], shared: &Shared, known: &mut Known) -> Result<bool, String> {
    let mut told = false;
    for device in devices {
        if device.listen(&shared.watch)? {
            known.keep(device.report.clone(), device.sick_xid());
            told = true;
        }
    }
    Ok(told)
}

fn cause(fault: Fault) -> String {
    match fault {
        Fault::Lost(cause) | Fault::ResetRequired(cause) | Fault::Driver(cause) => cause,
    }
}

/// Finds every GPU. Those that don't answer, and those that were known and are no longer listed, are lost.
fn open_all<'n>(nvml: &'n Nvml, shared: &Shared, known: &mut Known) -> Result<Vec<OpenDevice<'n>>, String> {
    let watch = &shared.watch;
    let count = ask(watch, "nvmlDeviceGetCount_v2", || nvml.device_count())
        .map_err(cause)?
        .ok_or("nvmlDeviceGetCount_v2: no answer")?;
    let mut devices = Vec::new();
    let mut silent = Vec::new();
    for index in 0..count {
        match OpenDevice::open(watch, nvml, index, known) {
            Ok(device) => devices.push(device),
            Err(Fault::Driver(cause)) => return Err(cause),
            Err(Fault::Lost(cause) | Fault::ResetRequired(cause)) => silent.push((index, cause)),
        }
    }
    let present: Vec<String> = devices.iter().map(|d| d.report.uuid.clone()).collect();
    for (index, cause) in silent {
        known.lose_index(index, &present, &cause);
    }
    known.lose_all_but(&present, "the driver no longer lists it");
    Ok(devices)
}
