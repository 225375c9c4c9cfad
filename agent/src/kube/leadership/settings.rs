//! How the replicas of an agent share a Lease.

use std::time::Duration;

/// For how long a Lease holds. client-go's own defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTimes {
    /// How long a candidate waits after it last saw the Lease change before it takes it.
    pub duration: Duration,
    /// How long a leader acts after it asked for the last renewal that it got.
    pub renew_deadline: Duration,
    /// Between two renewals.
    pub retry: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { duration: seconds(15), renew_deadline: seconds(10), retry: seconds(2) }
    }
}

impl LeaseTimes {
    /// Says what is wrong with them, if anything is: a leader must stop before others may take the Lease, with a margin for clocks that do not
    /// run alike, and have more than one try to renew.
    pub fn check(&self) -> Result<(), String> {
        if self.retry.is_zero() || self.renew_deadline < 2 * self.retry {
            return Err("the renew deadline must be at least twice the time between two renewals".to_owned());
        }
        if self.duration.mul_f64(0.9) < self.renew_deadline {
            return Err("the lease duration must be longer than the renew deadline by a tenth at least".to_owned());
        }
        Ok(())
    }

    pub(super) fn duration_ms(&self) -> u64 {
        ms(self.duration)
    }

    pub(super) fn deadline_ms(&self) -> u64 {
        ms(self.renew_deadline)
    }

    pub(super) fn retry_ms(&self) -> u64 {
        ms(self.retry)
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The Lease of one cluster's agent.
#[derive(Debug, Clone)]
pub struct LeaseSettings {
    /// The agent's own namespace, in which the Lease is.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// Whether the namespace is made where there is none.
    pub make_namespace: bool,
    /// For how long it holds.
    pub times: LeaseTimes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_must_have_stopped_before_others_may_take_over() {
        let seconds = Duration::from_secs;
        assert_eq!(LeaseTimes::default().check(), Ok(()));
        let with = |duration, renew_deadline, retry| LeaseTimes {
            duration: seconds(duration),
            renew_deadline: seconds(renew_deadline),
            retry: seconds(retry),
        };
        assert!(with(10, 10, 2).check().is_err());
        assert!(with(15, 3, 2).check().is_err());
        assert!(with(15, 10, 0).check().is_err());
        assert_eq!(with(3, 2, 1).check(), Ok(()));
    }
}
