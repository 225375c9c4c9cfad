//! A slow model of a pool's line where the least served go first, which shares no code with the engine. For tests.

use engine::State;
use engine::state::{Attempt, Happening, Workload};
use protocol::ids::UnixMs;
use protocol::pool::LineOrder;
use protocol::resources::Resources;

/// How much later than its submission a waiting workload stands in line.
pub fn late_ms(state: &State, w: &Workload) -> u64 {
    let least = state.pools.spec(&w.pool).is_some_and(|s| s.order == LineOrder::LeastServed);
    if least { counts_as(w, state.now) * 36_000_000 } else { 0 }
}

/// Hours of one GPU (of a core, for one without) that a workload counts as, rounded down to a power of four: what it has had, or what is left
/// of what it declares.
pub fn counts_as(w: &Workload, now: UnixMs) -> u64 {
    let had: u64 = w.attempts.iter().map(|attempt| had(w, attempt, now)).sum();
    let gang = w.spec.gang();
    let all = w.spec.expected_duration.map_or(0, |d| size(gang.iter().map(|g| (g.each, g.count))) * d.0 / 1000);
    let length = if all > had { all - had } else { had };
    let hours = length / 3_600_000;
    if hours == 0 { 0 } else { 1 << (hours.ilog2() / 2 * 2) }
}

fn size(members: impl Iterator<Item = (Resources, u32)>) -> u64 {
    let (gpus, cores) = members.fold((0, 0), |(gpus, cores), (each, count)| {
        (gpus + each.gpu_milli * u64::from(count), cores + each.cpu_milli * u64::from(count))
    });
    if gpus > 0 { gpus } else { cores }
}

/// What an attempt has had: each stretch between two resizes counts by the members that were there at its end, for those that ended by
/// themselves meanwhile do not count.
fn had(w: &Workload, attempt: &Attempt, now: UnixMs) -> u64 {
    let Some(mut since) = attempt.running_at else { return 0 };
    let placed = || attempt.placement.iter().map(|g| (g, g.nodes.iter().map(|share| share.members).sum::<u32>()));
    // With so many members in its elastic group, of which histories have one at most.
    let elastic = w.spec.elastic().next().map(|(name, ..)| name.clone());
    let with = |of_elastic: u32| {
        size(placed().map(|(g, count)| (g.each, if Some(&g.group) == elastic.as_ref() { of_elastic } else { count })))
    };
    let mut had = 0;
    for moment in &w.timeline {
        let before = match &moment.what {
            Happening::Grew { attempt: of, by, size } if *of == attempt.number => size - by,
            Happening::Shrunk { attempt: of, members, size, .. } if *of == attempt.number => size + members,
            _ => continue,
        };
        had += with(before) * moment.at.0.saturating_sub(since.0) / 1000;
        since = moment.at.max(since);
    }
    let rest = attempt.ended_at.unwrap_or(now).0.saturating_sub(since.0);
    had + size(placed().map(|(g, count)| (g.each, count))) * rest / 1000
}
