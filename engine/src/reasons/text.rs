//! Reasons as people read them. Codes and numbers are decided elsewhere; only their words are here.

use std::fmt;

use protocol::capacity::Sharing;
use protocol::control::AttemptState;
use protocol::resources::{Cpu, Gpus, Memory, Resources, Span};
use protocol::sku::Sku;
use protocol::workload::{Spread, native_kind};

use super::{Basis, Candidate, Copies, Lent, Obstacle, QuotaBound, ScoreTerm, Shortfall, WaitCause, Waiting};
use crate::commands::PROGRESS_MS;
use crate::pools::DEFAULT;
use crate::state::{Avoided, Awaited, Ground, Happening};

fn list<T: fmt::Display>(items: &[T], between: &str) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
}

fn members(count: u32) -> &'static str {
    if count == 1 { "member" } else { "members" }
}

/// How members are kept apart.
fn apart(spread: Spread) -> &'static str {
    match spread {
        Spread::None => "",
        Spread::Nodes => ", each on a node of its own",
    }
}

/// What a member needs, by its scarcest: `8 free H100`, `4 cpu and 16Gi`.
fn amount(each: &Resources, sku: Option<&Sku>) -> String {
    match sku {
        Some(sku) => {
            format!("{} free {sku} ({} cpu, {})", Gpus(each.gpu_milli), Cpu(each.cpu_milli), Memory(each.memory_mib))
        }
        None => format!("{} cpu and {}", Cpu(each.cpu_milli), Memory(each.memory_mib)),
    }
}

/// The largest share that is given out in one of these ways, in thousandths.
pub(crate) fn largest_share(given: &[Sharing]) -> u64 {
    given.iter().map(|way| u64::from(way.part_milli())).max().unwrap_or(0)
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::ClusterLost { .. } => f.write_str("not heard from for longer than a lease"),
            Obstacle::NoCapacityYet => f.write_str("has not sent its capacity yet"),
            Obstacle::StaleCapacity { age_ms, bound_ms } => {
                write!(f, "its capacity is {age_ms} ms old; at most {bound_ms} ms is placed on")
            }
            Obstacle::WrongRegion { region, required } => {
                write!(f, "is in {region}; {} is required", list(required, " or "))
            }
            Obstacle::NoManifests { framework } => {
                write!(f, "takes no {} as it is (spec.manifest)", native_kind(*framework))
            }
            Obstacle::NoSecrets => f.write_str("has no secrets (spec.secrets)"),
            Obstacle::NoFence => {
                f.write_str("can't end attempts by itself once it is cut off (spec.onClusterLoss: failover)")
            }
            Obstacle::NoRuntime { framework } => write!(f, "does not run {framework}"),
            Obstacle::NoSku { group, accepted } if accepted.is_empty() => {
                write!(f, "has no whole GPUs, which group {group} needs")
            }
            Obstacle::NoSku { group, accepted } => {
                write!(f, "has no {}, which group {group} needs", list(accepted, " or "))
            }
            Obstacle::TooSmall { group, needs, holds, spread } => {
                let (members, apart) = (members(*needs), apart(*spread));
                write!(f, "too small: group {group} needs {needs} {members}{apart}; empty, it could hold {holds}")
            }
            Obstacle::NoRoom {
                group,
                each,
                sku,
                spread,
                needs,
                fits,
                held_by_ghosts,
                held_by_sick,
                held_by_foreign,
                held_by_attempts,
                on_avoided,
                avoided,
            } => {
                let (amount, apart) = (amount(each, sku.as_ref()), apart(*spread));
                write!(f, "group {group} needs {needs} x {amount}{apart}; has {fits}")?;
                let held = [
                    (held_by_ghosts, "held by ghosts"),
                    (held_by_sick, "held by sick GPUs"),
                    (held_by_foreign, "held by pods of others"),
                    (held_by_attempts, "held by running attempts"),
                ];
                held.iter().filter(|(n, _)| **n > 0).try_for_each(|(n, by)| write!(f, "; {n} more {by}"))?;
                match avoided {
                    Some(avoided) => write!(f, "; {on_avoided} more on nodes that are avoided: {avoided}"),
                    None => Ok(()),
                }
            }
            Obstacle::TooDear { most, least } => write!(f, "costs {least} an hour at least; at most {most} is paid"),
            Obstacle::NoPrice { group, models } => {
                write!(f, "has no price for {}, which group {group} needs to know", list(models, " or "))
            }
            Obstacle::ElsewhereThan { workload, cluster } => {
                write!(f, "{workload}, beside which it is to be, is in {cluster}")
            }
            Obstacle::Avoided(avoided) => write!(f, "is avoided, for it had no room after all: {avoided}"),
            Obstacle::NoCopy { data, size, copies } => write!(f, "has no copy of {data} ({size}); it is in {copies}"),
            Obstacle::Cordoned { since, reason, drained } => {
                let how = if *drained { "drained" } else { "cordoned" };
                let said = if reason.is_empty() { String::new() } else { format!(", {reason}") };
                write!(f, "is {how} (since {since} ms since 1970{said})")
            }
            Obstacle::OtherSharing { group, asked, given } => {
                let asks = if asked.0 < 1000 { format!("{asked} of one") } else { format!("{asked} whole") };
                match largest_share(given) {
                    0 => write!(f, "gives out whole GPUs only; group {group} asks for {asks}"),
                    _ if asked.0 >= 1000 => {
                        write!(
                            f,
                            "gives out GPUs in parts only ({}); group {group} asks for {asks}",
                            list(given, " or ")
                        )
                    }
                    most => {
                        write!(f, "gives out shares of at most {} of a GPU; group {group} asks for {asks}", Gpus(most))
                    }
                }
            }
            Obstacle::BehindOthers { first, .. } => write!(f, "its room is kept for {first}, which is ahead in line"),
        }
    }
}

impl fmt::Display for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut places: Vec<String> = self.clusters.iter().map(ToString::to_string).collect();
        places.extend(self.regions.iter().map(|region| format!("region {region}")));
        if self.more > 0 {
            places.push(format!("{} more", self.more));
        }
        f.pad(&places.join(", "))
    }
}

impl fmt::Display for Avoided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { until, attempt, failures } = self;
        match failures {
            1 => write!(f, "attempt {attempt} failed there; taken again at {until} (ms since 1970)"),
            _ => write!(
                f,
                "{failures} attempts in a row failed there, the last was {attempt}; taken again at {until} (ms since 1970)"
            ),
        }
    }
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Basis::Declared => f.write_str("as it declared"),
            Basis::Learnt { runs } => write!(f, "as the last {runs} of its kind did"),
            Basis::Ending => f.write_str("it is being ended"),
            Basis::Shrinking => f.write_str("members of it are being ended"),
        }
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.obstacle {
            Some(obstacle) => write!(f, "{}: {obstacle}", self.cluster),
            None => write!(f, "{}: {}", self.cluster, list(&self.score, ", ")),
        }
    }
}

impl fmt::Display for ScoreTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, unit } = self;
        if *value == i64::MAX {
            return write!(f, "{name} unknown");
        }
        write!(f, "{name} {value}")?;
        if unit.is_empty() { Ok(()) } else { write!(f, " {unit}") }
    }
}

impl fmt::Display for WaitCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitCause::NoClusters => f.write_str("no cluster has joined"),
            WaitCause::Impossible => f.write_str("no cluster could hold it, even empty"),
            WaitCause::Backoff { until } => write!(f, "it waits until {until} (ms since 1970) before the next try"),
            WaitCause::Dependencies { awaited } => {
                write!(f, "it depends on workloads that have not succeeded: {}", list(awaited, ", "))
            }
            WaitCause::Companion { workload, phase: Some(phase) } => {
                write!(f, "it is to be in the cluster of {workload}, which is {phase} and was never placed")
            }
            WaitCause::Companion { workload, phase: None } => {
                write!(f, "it is to be in the cluster of {workload}, which is not on record")
            }
            WaitCause::UnknownData { data } => {
                write!(f, "no data location {} is known: tidewater data apply", list(data, " nor "))
            }
            WaitCause::NoTokens => f.write_str(
                "no coordinator issues workload tokens (spec.tokens): tidewater coordinator --workload-issuer",
            ),
            WaitCause::NoRoom => f.write_str("no cluster has room for the whole gang"),
            WaitCause::BehindOthers { ahead: 1, first } => write!(f, "{first} is ahead and waits for the same room"),
            WaitCause::BehindOthers { ahead, first } => {
                write!(f, "{ahead} are ahead and wait for the same room, {first} first")
            }
            WaitCause::BeingPlaced => f.write_str("it has a place; the binding is being committed"),
            WaitCause::Quota(short) => short.fmt(f),
        }
    }
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workload, phase, ended } = self;
        match (phase, ended) {
            (Some(phase), _) => write!(f, "{workload} is {phase}"),
            (None, Some(ended)) => write!(f, "{workload} ended {ended} and is not on record any more"),
            (None, None) => write!(f, "{workload} is not on record"),
        }
    }
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, bound, resource, most, held, kept, needs } = self;
        let kept = match kept {
            0 => String::new(),
            kept => format!(", and {} more is kept for those ahead", resource.show(*kept)),
        };
        let (most, held, needs) = (resource.show(*most), resource.show(*held), resource.show(*needs));
        match bound {
            QuotaBound::Entitlement => {
                write!(f, "pool {pool} is entitled to {most} {resource} now and has {held}{kept}; this needs {needs}")
            }
            QuotaBound::Limit => {
                write!(f, "pool {pool} may have at most {most} {resource} and has {held}; this needs {needs}")
            }
            QuotaBound::Reservation => write!(
                f,
                "what may not be preempted must fit into the reservation: pool {pool} reserves {most} {resource}, of which \
                 {held} is taken so; this needs {needs}"
            ),
        }
    }
}

impl fmt::Display for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, resource, held, entitled } = self;
        let (held, entitled) = (resource.show(*held), resource.show(*entitled));
        write!(f, "pool {pool} holds {held} {resource} and is entitled to {entitled}")
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waits, {} of {} in line", self.place, self.of)?;
        if self.pool != *DEFAULT {
            write!(f, " of pool {}", self.pool)?;
        }
        write!(f, ": {}", self.cause)?;
        if self.cause != WaitCause::BeingPlaced && !self.candidates.is_empty() {
            write!(f, " ({})", list(&self.candidates, "; "))?;
        }
        if !self.lent.is_empty() {
            write!(f, "; {}", list(&self.lent, ", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Happening::Submitted => f.write_str("submitted"),
            Happening::Bound { attempt, cluster } => write!(f, "attempt {attempt} bound to {cluster}"),
            Happening::Reported { attempt, state } => write!(f, "attempt {attempt} {}", state_text(state)),
            Happening::Retried { attempt, class, .. } => {
                write!(f, "back in the queue after the {class} failure of attempt {attempt}")
            }
            Happening::CancelRequested => f.write_str("cancel requested"),
            Happening::ClusterLost { cluster } => write!(f, "{cluster} was not heard from for longer than a lease"),
            Happening::ClusterReturned { cluster } => write!(f, "{cluster} is back"),
            Happening::Preempted { attempt, by, pool, ground } => {
                write!(f, "attempt {attempt} gives its room to {by} of pool {pool}: {ground}")
            }
            Happening::ClusterReplaced { cluster } => write!(
                f,
                "the agent of {cluster} came back without its records: whether the attempt still runs there is not known"
            ),
            Happening::GivenUp { failures } => write!(
                f,
                "given up: its infrastructure failed {failures} times in a row, and no attempt had run for {} by then; look \
                 for what in it takes its nodes down, or submit it again once its infrastructure is sound",
                Span(PROGRESS_MS)
            ),
            Happening::Grew { attempt, by, size } => {
                write!(f, "attempt {attempt} grew by {by} to {size} {}", members(*size))
            }
            Happening::Shrunk { attempt, members, size, by, pool, ground } => {
                write!(f, "attempt {attempt} shrunk by {members} to {size} for {by} of pool {pool}: {ground}")
            }
            Happening::Missing { attempt, members: missing, size } => write!(
                f,
                "{missing} {} of attempt {attempt} beyond its minimum did not come up or ended: it has {size}",
                members(*missing)
            ),
            Happening::Idle { attempt, timeout, .. } => write!(
                f,
                "attempt {attempt} is ended: all its GPUs were measured to do nothing for {timeout} (spec.idleTimeout)"
            ),
            Happening::Drained { attempt, cluster, reason } => {
                let said = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
                write!(f, "attempt {attempt} is ended: {cluster} is drained{said}")
            }
            Happening::Forgotten { attempt, reason } => write!(f, "attempt {attempt} was said to be gone: {reason}"),
        }
    }
}

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ground::Lent { resource, held, entitled } => {
                let (held, entitled) = (resource.show(*held), resource.show(*entitled));
                write!(f, "its own pool held {held} {resource} and is entitled to {entitled}")
            }
            Ground::Passed => f.write_str("it was let past the other on condition that it ends once that can start"),
            Ground::Served { own, other } => {
                let hours = |ms: &u64| format!("{}.{}", ms / 3_600_000, ms % 3_600_000 / 360_000);
                let (own, other) = (hours(own), hours(other));
                write!(f, "its pool serves the least served first: it counts as {own} GPU-hours, the other as {other}")
            }
            Ground::Extra => f.write_str("members beyond its minimum go before any gang of its pool waits"),
            Ground::Priority { own, other } => write!(f, "its priority is {own}, the other's is {other}"),
        }
    }
}

/// An attempt's state as the end of a sentence that begins with the attempt.
pub fn state_text(state: &AttemptState) -> String {
    match state {
        AttemptState::Accepted => "was accepted".into(),
        AttemptState::Starting { waiting_for } if waiting_for.is_empty() => "is starting".into(),
        AttemptState::Starting { waiting_for } => format!("is starting, waiting for {waiting_for}"),
        AttemptState::Running => "is running".into(),
        AttemptState::Succeeded => "succeeded".into(),
        AttemptState::Failed { class, message, exit_code } => {
            let code = exit_code.map(|c| format!(", exit code {c}")).unwrap_or_default();
            format!("failed ({class}{code}): {message}")
        }
        AttemptState::Stopped => "was stopped".into(),
    }
}
