//! The Lease as an object: what is read of it, and what is written. Its times are for people; what counts is that every write changes it, which
//! candidates see by its version.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use protocol::ids::{Epoch, Incarnation};

use super::settings::LeaseTimes;

/// The highest epoch of a coordinator that any leader saw.
const EPOCH: &str = "tidewater.dev/epoch";
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "tidewater");

/// The Lease at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    /// Changes with each write.
    pub version: String,
    /// Who has it; none where it was released.
    pub holder: Option<String>,
    /// How long its holder wants others to wait, in ms.
    pub duration_ms: u64,
    /// The object, which is written back with everything that others put into it.
    object: Lease,
}

impl Seen {
    /// Reads it; none where it is no object of an API server.
    pub(super) fn of(object: Lease) -> Option<Self> {
        let version = object.metadata.resource_version.clone()?;
        let spec = object.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
        let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
        let seen = Self { version, holder, duration_ms: seconds.saturating_mul(1000), object };
        seen.life().map(|_| seen)
    }

    /// Which life of the cluster's records this is: the Lease is deleted with them, and made with another uid.
    pub(super) fn life(&self) -> Option<Incarnation> {
        let uid = self.object.metadata.uid.as_deref()?;
        Some(Incarnation(uuid::Uuid::parse_str(uid).ok()?.as_u128()))
    }

    /// How often it went from one holder to the next: each leadership has a number of its own.
    pub(super) fn transitions(&self) -> u32 {
        let count = self.object.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0);
        u32::try_from(count).unwrap_or(0)
    }

    /// The highest epoch that any leader saw.
    pub(super) fn epoch(&self) -> Epoch {
        let text = self.object.metadata.annotations.as_ref().and_then(|notes| notes.get(EPOCH));
        Epoch(text.and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    /// Since when its holder has it, as its holder's clock says.
    pub(super) fn since(&self) -> String {
        let since = self.object.spec.as_ref().and_then(|spec| spec.acquire_time.as_ref());
        since.map_or_else(|| "an unknown time".to_owned(), |time| format!("{:.0}", time.0))
    }
}

/// What a replica writes.
pub(super) struct Hand<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub me: &'a str,
    pub times: &'a LeaseTimes,
    /// Never written lower than it stands.
    pub epoch: Epoch,
    pub now: Timestamp,
}

impl Hand<'_> {
    /// The Lease in this replica's hand from now on.
    pub(super) fn take(&self, over: Option<&Seen>) -> Lease {
        let transitions =
            over.map_or(0, |seen| i32::try_from(seen.transitions()).unwrap_or(i32::MAX).saturating_add(1));
        self.write(over, |spec, now| {
            spec.holder_identity = Some(self.me.to_owned());
            spec.acquire_time = Some(now);
            spec.lease_transitions = Some(transitions);
        })
    }

    /// The Lease in its hand still.
    pub(super) fn renew(&self, over: &Seen) -> Lease {
        self.write(Some(over), |_, _| {})
    }

    /// The Lease in nobody's hand: it may be taken at once.
    pub(super) fn release(&self, over: &Seen) -> Lease {
        self.write(Some(over), |spec, now| {
            spec.holder_identity = None;
            spec.acquire_time = Some(now);
            spec.lease_duration_seconds = Some(1);
        })
    }

    fn write(&self, over: Option<&Seen>, change: impl FnOnce(&mut LeaseSpec, MicroTime)) -> Lease {
        let mut object = over.map(|seen| seen.object.clone()).unwrap_or_default();
        object.metadata.managed_fields = None;
        object.metadata.namespace = Some(self.namespace.to_owned());
        object.metadata.name = Some(self.name.to_owned());
        let labels = object.metadata.labels.get_or_insert_default();
        labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
        let epoch = self.epoch.max(over.map_or(Epoch(0), Seen::epoch));
        object.metadata.annotations.get_or_insert_default().insert(EPOCH.to_owned(), epoch.0.to_string());
        let spec = object.spec.get_or_insert_default();
        // A write that changes nothing makes no new version, and candidates would take the holder for dead: also with a clock that went back.
        let before = spec.renew_time.as_ref().and_then(|time| time.0.checked_add(SignedDuration::from_micros(1)).ok());
        let now = MicroTime(before.map_or(self.now, |before| before.max(self.now)));
        spec.renew_time = Some(now.clone());
        let seconds = self.times.duration.as_millis().div_ceil(1000);
        spec.lease_duration_seconds = Some(i32::try_from(seconds).unwrap_or(i32::MAX));
        change(spec, now);
        object
    }
}
