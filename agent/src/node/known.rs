//! What is known of each GPU beyond one life of the driver: a GPU that vanishes stays known, as lost.

use protocol::node::{DeviceHealth, DeviceReport, Xids};
use protocol::sku::Sku;

/// One GPU.
#[derive(Debug, Clone)]
pub struct KnownDevice {
    /// Its last report.
    pub report: DeviceReport,
    /// The last XID that made it sick, kept until the driver was loaded again: only that or a reset heals it, and a reset
    /// ends every process that holds NVML, this one too.
    pub sick_xid: Option<u64>,
}

/// Every GPU that was seen since the process started, in order of index.
#[derive(Debug, Default)]
pub struct Known(Vec<KnownDevice>);

/// The name under which a GPU stands that was lost before it ever gave its own.
fn nameless(index: u32) -> String {
    format!("index-{index}")
}

/// Takes every reading that the driver gives out of a report; what the GPU is stays.
pub fn forget_readings(report: &mut DeviceReport) {
    report.activity = None;
    report.memory_used_mib = None;
    report.processes = None;
    report.temperature_c = None;
    report.power_mw = None;
}

impl Known {
    /// The reports as they are now.
    pub fn reports(&self) -> Vec<DeviceReport> {
        self.0.iter().map(|k| k.report.clone()).collect()
    }

    /// The XID that made a GPU sick.
    pub fn sick_xid(&self, uuid: &str) -> Option<u64> {
        self.of(uuid)?.sick_xid
    }

    /// The XIDs that were told of a GPU so far.
    pub fn xids(&self, uuid: &str) -> Xids {
        self.of(uuid).map(|known| known.report.xids.clone()).unwrap_or_default()
    }

    fn of(&self, uuid: &str) -> Option<&KnownDevice> {
        self.0.iter().find(|known| known.report.uuid == uuid)
    }

    /// Whether any GPU is lost.
    pub fn any_lost(&self) -> bool {
        self.0.iter().any(|k| matches!(k.report.health, DeviceHealth::Lost { .. }))
    }

    /// Keeps a report in place of the GPU's last one.
    pub fn keep(&mut self, report: DeviceReport, sick_xid: Option<u64>) {
        self.0.retain(|k| k.report.uuid != report.uuid && k.report.uuid != nameless(report.index));
        self.0.push(KnownDevice { report, sick_xid });
        self.0.sort_by(|a, b| (a.report.index, &a.report.uuid).cmp(&(b.report.index, &b.report.uuid)));
    }

    /// The GPU at `index` did not even give its name. Where one was known there that is not among `present` (UUIDs), it is
    /// that one that is lost.
    pub fn lose_index(&mut self, index: u32, present: &[String], cause: &str) {
        let lost = DeviceHealth::Lost { cause: cause.into() };
        let there = |k: &&mut KnownDevice| k.report.index == index && !present.contains(&k.report.uuid);
        if let Some(known) = self.0.iter_mut().find(there) {
            forget_readings(&mut known.report);
            known.report.health = lost;
            return;
        }
        self.keep(DeviceReport::unread(index, nameless(index), Sku::from_driver("unknown"), lost), None);
    }

    /// Every GPU but those in `present` (UUIDs) is lost.
    pub fn lose_all_but(&mut self, present: &[String], cause: &str) {
        for known in self.0.iter_mut().filter(|k| !present.contains(&k.report.uuid)) {
            forget_readings(&mut known.report);
            // What it said itself when it was lost says more.
            if !matches!(known.report.health, DeviceHealth::Lost { .. }) {
                known.report.health = DeviceHealth::Lost { cause: cause.into() };
            }
        }
    }

    /// The driver is gone: nothing answers, and what comes back was initialised anew.
    pub fn driver_gone(&mut self, cause: &str) {
        for known in &mut self.0 {
            forget_readings(&mut known.report);
            known.report.health = DeviceHealth::Lost { cause: cause.into() };
            known.sick_xid = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(index: u32, uuid: &str) -> DeviceReport {
        let mut known = Known::default();
        known.lose_index(index, &[], "");
        let mut report = known.reports().remove(0);
        report.uuid = uuid.into();
        report.memory_used_mib = Some(5);
        report.memory_total_mib = Some(9);
        report.health = DeviceHealth::Ok;
        report
    }

    #[test]
    fn a_gpu_that_vanishes_stays_known_as_lost_without_readings() {
        let mut known = Known::default();
        known.keep(report(0, "a"), None);
        known.keep(report(1, "b"), Some(79));
        known.lose_all_but(&["a".into()], "not listed");
        let reports = known.reports();
        assert_eq!(reports[0].health, DeviceHealth::Ok);
        assert_eq!(reports[1].health, DeviceHealth::Lost { cause: "not listed".into() });
        assert_eq!((reports[1].memory_used_mib, reports[1].memory_total_mib), (None, Some(9)));
        assert!(known.any_lost());
        assert_eq!(known.sick_xid("b"), Some(79));
    }

    #[test]
    fn a_nameless_gpu_gives_way_to_its_name() {
        let mut known = Known::default();
        known.lose_index(3, &[], "lost");
        assert_eq!(known.reports()[0].uuid, "index-3");
        known.keep(report(3, "c"), None);
        assert_eq!(known.reports().iter().map(|r| r.uuid.as_str()).collect::<Vec<_>>(), ["c"]);
        known.lose_index(3, &[], "lost");
        assert_eq!(known.reports()[0].uuid, "c");
    }

    #[test]
    fn a_driver_that_was_loaded_again_forgets_xids() {
        let mut known = Known::default();
        known.keep(report(0, "a"), Some(48));
        known.driver_gone("gone");
        assert_eq!(known.sick_xid("a"), None);
        assert_eq!(known.reports()[0].health, DeviceHealth::Lost { cause: "gone".into() });
    }
}
