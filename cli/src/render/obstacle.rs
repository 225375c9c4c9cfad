//! What keeps a gang out of a cluster, in words: the numbers have columns of their own beside them.

use engine::reasons::Obstacle;
use engine::state::Avoided;
use protocol::workload::{Spread, native_kind};

use super::age;

fn apart(spread: Spread) -> &'static str {
    match spread {
        Spread::None => "",
        Spread::Nodes => ", on a node of its own",
    }
}

/// One obstacle, as a short sentence.
pub fn sentence(obstacle: &Obstacle) -> String {
    let join = |texts: Vec<String>| texts.join(", ");
    match obstacle {
        Obstacle::ClusterLost { since } => format!("not heard from for {}", age::ago(*since)),
        Obstacle::NoCapacityYet => "has not reported its capacity yet".to_owned(),
        Obstacle::StaleCapacity { age_ms, bound_ms } => {
            format!("its capacity is {} old, at most {} is allowed", age::span_ms(*age_ms), age::span_ms(*bound_ms))
        }
        Obstacle::WrongRegion { region, required } => {
            let required = join(required.iter().map(ToString::to_string).collect());
            format!("is in {region}; required: {required}")
        }
        Obstacle::NoManifests { framework } => format!("takes no {} as it is", native_kind(*framework)),
        Obstacle::NoSecrets => "has no secrets".to_owned(),
        Obstacle::NoFence => "attempts can't end themselves there (failover)".to_owned(),
        Obstacle::NoRuntime { framework } => format!("can't run {framework}"),
        Obstacle::NoSku { group, accepted } => {
            let accepted = join(accepted.iter().map(ToString::to_string).collect());
            format!("has none of the models that {group} accepts: {accepted}")
        }
        Obstacle::TooSmall { group, needs, holds, spread } => {
            format!("too small even when empty: {group} needs {needs}{}, it holds {holds}", apart(*spread))
        }
        Obstacle::NoRoom { group, each, sku, spread, on_avoided, avoided, .. } => {
            let sku = sku.as_ref().map(|sku| format!(" on {sku}")).unwrap_or_default();
            let avoided = avoided.as_ref().map(|avoided| {
                let until = age::until(avoided.until);
                format!("; {on_avoided} more on nodes where it failed lately, taken again {until}")
            });
            let apart = apart(*spread);
            format!("no room for {group}{sku} now (each: {each}{apart}){}", avoided.unwrap_or_default())
        }
        other @ (Obstacle::TooDear { .. }
        | Obstacle::NoPrice { .. }
        | Obstacle::ElsewhereThan { .. }
        | Obstacle::NoCopy { .. }
        | Obstacle::OtherSharing { .. }) => other.to_string(),
        Obstacle::Avoided(Avoided { until, attempt, .. }) => {
            format!("had no room for attempt {attempt} after all; taken again {}", age::until(*until))
        }
        Obstacle::Cordoned { since, reason, drained } => {
            let how = if *drained { "drained" } else { "cordoned" };
            let said = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            format!("{how} for {}{said}", age::ago(*since))
        }
        Obstacle::BehindOthers { first, .. } => format!("has room, which is kept for {first}"),
    }
}
