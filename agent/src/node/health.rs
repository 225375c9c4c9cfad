//! Whether a GPU can be given out: what the driver counts and reports, judged. Pure.
//!
//! Sources: NVIDIA's Xid catalog (docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html), whose immediate action says
//! what an XID asks for, and its notes on memory errors and recovery actions
//! (docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt/error-recovery-and-response-flags.html).

use protocol::node::DeviceHealth;

/// What an XID says about the GPU that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XidClass {
    /// The GPU needs a reset, a reboot or a repair before it can be trusted; with the catalog's words.
    Sick(&'static str),
    /// The work on it is at fault or was hit, or the GPU repaired itself: it can be used on.
    Harmless,
}

/// The class of an XID. One that is not listed is harmless here: where it hurts, the driver's recovery action, the ECC
/// counters or a lost GPU say so as well, and an unknown number is no ground to take a GPU away.
///
/// 13, 31, 43 and 45 come from the application; 63 records a successful row remap and 92 many corrected errors, both with
/// the action IGNORE. 94 (contained memory error) kills only its application, but is an uncorrectable error, which
/// `judge` does not give out either until the GPU was reset.
pub fn classify(xid: u64) -> XidClass {
    match xid {
        46 => XidClass::Sick("GPU stopped processing"),
        48 => XidClass::Sick("double-bit ECC error"),
        54 => XidClass::Sick("auxiliary power not connected"),
        61 | 62 => XidClass::Sick("internal micro-controller halted"),
        64 => XidClass::Sick("row remapping failed"),
        74 => XidClass::Sick("NVLink error"),
        79 => XidClass::Sick("GPU has fallen off the bus"),
        94 => XidClass::Sick("contained memory error"),
        95 => XidClass::Sick("uncontained memory error"),
        109 => XidClass::Sick("context switch timeout"),
        110 => XidClass::Sick("security fault"),
        119 => XidClass::Sick("GSP RPC timeout"),
        120 => XidClass::Sick("GSP error"),
        136 => XidClass::Sick("link training failed"),
        140 => XidClass::Sick("unrecovered ECC error"),
        143 => XidClass::Sick("GPU initialization failed"),
        144..=150 => XidClass::Sick("NVLink error"),
        155 => XidClass::Sick("NVLink software-defined error"),
        156 => XidClass::Sick("resource retirement"),
        158 => XidClass::Sick("GPU fatal timeout"),
        _ => XidClass::Harmless,
    }
}

/// An XID in the catalog's words.
pub fn named(xid: u64) -> String {
    let what = match (classify(xid), xid) {
        (XidClass::Sick(what), _) => what,
        (_, 13) => "graphics engine exception",
        (_, 31) => "GPU memory page fault",
        (_, 32) => "invalid or corrupted push buffer stream",
        (_, 43) => "GPU stopped processing of a program",
        (_, 45) => "preemptive cleanup after earlier errors",
        (_, 63) => "row remapping recorded",
        (_, 69) => "graphics engine class error",
        (_, 92) => "high rate of corrected ECC errors",
        _ => return format!("XID {xid}"),
    };
    format!("XID {xid}: {what}")
}

/// The cause that a GPU is out until it has cooled.
const THERMAL_SLOWDOWN: &str = "hardware thermal slowdown";
/// The cause that a GPU is out until a reset, though what runs on it may go on.
const RETIREMENT_PENDING: &str = "page retirement waits for a reset";
/// Between causes.
const AND: &str = "; ";

/// Of a GPU's causes those that may have ended what ran on it; none where it only is not to be given out.
pub fn harmful(health: &DeviceHealth) -> Option<String> {
    let cause = match health {
        DeviceHealth::Ok => return None,
        DeviceHealth::Lost { cause } => return Some(format!("it is lost: {cause}")),
        DeviceHealth::Sick { cause } => cause,
    };
    let causes: Vec<&str> = cause.split(AND).filter(|c| ![THERMAL_SLOWDOWN, RETIREMENT_PENDING].contains(c)).collect();
    (!causes.is_empty()).then(|| causes.join(AND))
}

/// What is known of a GPU's health. `None` is unknown, which is nothing against it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealthFacts {
    /// The last XID of a sick class since the driver was loaded.
    pub xid: Option<u64>,
    /// Uncorrectable ECC errors since the driver was loaded.
    pub ecc_uncorrectable: Option<u64>,
    /// Whether a row remap failed.
    pub remap_failed: Option<bool>,
    /// Whether pages wait for a reset to be retired (GPUs before Ampere).
    pub retirement_pending: Option<bool>,
    /// `nvmlDeviceGpuRecoveryAction_t`: what the driver itself asks for.
    pub recovery_action: Option<u32>,
    /// Whether the hardware slows its clocks because it is too hot.
    pub thermal_slowdown: Option<bool>,
    /// Whether a call said that the GPU needs a reset.
    pub reset_required: bool,
}

/// The GPU's state, with every cause that is known.
///
/// A pending row remap is no cause: NVIDIA lets new work start on such a GPU, and the reset that it waits for can too.
pub fn judge(facts: &HealthFacts) -> DeviceHealth {
    let mut causes = Vec::new();
    if let Some(xid) = facts.xid {
        causes.push(named(xid));
    }
    if let Some(count @ 1..) = facts.ecc_uncorrectable {
        causes.push(format!("uncorrectable ECC errors: {count}"));
    }
    if facts.remap_failed == Some(true) {
        causes.push("row remapping failed".into());
    }
    if facts.retirement_pending == Some(true) {
        causes.push(RETIREMENT_PENDING.into());
    }
    if let Some(action @ 1..) = facts.recovery_action {
        causes.push(format!("the driver asks for recovery: {}", recovery(action)));
    }
    if facts.reset_required {
        causes.push("the GPU requires a reset".into());
    }
    if facts.thermal_slowdown == Some(true) {
        causes.push(THERMAL_SLOWDOWN.into());
    }
    if causes.is_empty() { DeviceHealth::Ok } else { DeviceHealth::Sick { cause: causes.join(AND) } }
}

fn recovery(action: u32) -> String {
    match action {
        1 => "reset the GPU".into(),
        2 => "reboot the node".into(),
        3 => "drain peer-to-peer traffic".into(),
        4 => "drain and reset".into(),
        other => format!("action {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(facts: HealthFacts) -> String {
        match judge(&facts) {
            DeviceHealth::Sick { cause } => cause,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn xids_of_applications_and_of_repairs_leave_a_gpu_in_use() {
        for xid in [13, 31, 32, 43, 45, 63, 92, 137, 154, 0, 9999] {
            assert_eq!(classify(xid), XidClass::Harmless, "XID {xid}");
        }
    }

    #[test]
    fn xids_that_ask_for_a_reset_take_a_gpu_out() {
        for xid in [46, 48, 62, 64, 74, 79, 94, 95, 109, 110, 119, 120, 136, 140, 143, 144, 150, 158] {
            assert!(matches!(classify(xid), XidClass::Sick(_)), "XID {xid}");
        }
    }

    #[test]
    fn nothing_known_is_nothing_against_it() {
        assert_eq!(judge(&HealthFacts::default()), DeviceHealth::Ok);
        let clean = HealthFacts {
            xid: None,
            ecc_uncorrectable: Some(0),
            remap_failed: Some(false),
            retirement_pending: Some(false),
            recovery_action: Some(0),
            thermal_slowdown: Some(false),
            reset_required: false,
        };
        assert_eq!(judge(&clean), DeviceHealth::Ok);
    }

    #[test]
    fn heat_and_pages_that_wait_for_a_reset_end_no_program() {
        let hot =
            HealthFacts { thermal_slowdown: Some(true), retirement_pending: Some(true), ..HealthFacts::default() };
        assert_eq!(harmful(&judge(&hot)), None);
        let worse = HealthFacts { xid: Some(79), ..hot };
        assert_eq!(harmful(&judge(&worse)).as_deref(), Some("XID 79: GPU has fallen off the bus"));
        let lost = DeviceHealth::Lost { cause: "no such device".into() };
        assert_eq!(harmful(&lost).as_deref(), Some("it is lost: no such device"));
        assert_eq!(harmful(&DeviceHealth::Ok), None);
    }

    #[test]
    fn every_cause_is_named_with_its_number() {
        let facts = HealthFacts { xid: Some(79), ecc_uncorrectable: Some(2), ..HealthFacts::default() };
        assert_eq!(cause(facts), "XID 79: GPU has fallen off the bus; uncorrectable ECC errors: 2");
        assert!(cause(HealthFacts { remap_failed: Some(true), ..HealthFacts::default() }).contains("row remapping"));
        assert!(cause(HealthFacts { retirement_pending: Some(true), ..HealthFacts::default() }).contains("retirement"));
        assert!(cause(HealthFacts { recovery_action: Some(2), ..HealthFacts::default() }).contains("reboot"));
        assert!(cause(HealthFacts { thermal_slowdown: Some(true), ..HealthFacts::default() }).contains("thermal"));
        assert!(cause(HealthFacts { reset_required: true, ..HealthFacts::default() }).contains("reset"));
    }
}
