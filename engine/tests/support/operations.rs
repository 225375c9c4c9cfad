//! What may happen in a random history, and how often: of faults, of room that is lent and taken back, and of workloads that grow and shrink.

use proptest::prelude::*;

pub(super) const CLUSTERS: [&str; 2] = ["eu-1", "us-1"];
pub(super) const NAMES: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
/// How many of the names a history of faults uses, so that they meet again.
pub(super) const FEW: usize = 4;
pub(super) const POOLS: [&str; 3] = ["p", "q", "r"];
pub(super) const DATA: [&str; 2] = ["corpus", "images"];
pub(super) const STATES: [&str; 9] =
    ["accepted", "starting", "running", "running", "succeeded", "stopped", "user", "infrastructure", "capacity"];

/// One thing that happens. Numbers choose among what there is.
#[derive(Debug, Clone)]
pub enum Op {
    Epoch,
    Submit {
        name: usize,
        count: u32,
        gpus: u64,
        priority: i32,
        retries: u32,
        pool: usize,
        firm: bool,
        lasts: u64,
        after: usize,
        ttl: u64,
        reads: usize,
        /// How many members more its Ray workers may be.
        more: u32,
    },
    SetData {
        name: usize,
        gib: u64,
        places: usize,
    },
    DeleteData {
        name: usize,
    },
    GrowAgain {
        which: usize,
    },
    PreemptAgain {
        which: usize,
    },
    SetPool {
        name: usize,
        parent: usize,
        reservation: u64,
        limit: u64,
        share: u32,
        kept: bool,
        within: bool,
    },
    DeletePool {
        name: usize,
    },
    /// A part is raised to so many GPUs, or with 0 not any more.
    Raise {
        name: usize,
        gpus: u64,
    },
    Owner {
        pool: usize,
    },
    Plan {
        limit: usize,
    },
    BindAgain {
        which: usize,
        older_epoch: bool,
    },
    Report {
        name: usize,
        cluster: usize,
        attempt_back: u32,
        revision_back: u64,
        state: usize,
        /// What it says of the newest resize.
        size: u8,
    },
    Join {
        cluster: usize,
        life: u128,
        took_all: bool,
        forgets: usize,
        state: usize,
    },
    Lose {
        cluster: usize,
    },
    Cancel {
        name: usize,
    },
    Delete {
        name: usize,
    },
    Expire {
        name: usize,
    },
    Forget {
        name: usize,
        attempt_back: u32,
    },
    Fence {
        name: usize,
        attempt_back: u32,
        older_epoch: bool,
    },
    Tick {
        ms: u64,
    },
    CatchUp {
        cluster: usize,
    },
    /// A cluster is opened (0, 1), cordoned (2, 3) or drained (4: all at once, 5: one by one, 6: with force).
    Cordon {
        cluster: usize,
        how: u8,
    },
    Remove {
        cluster: usize,
        lost_for_good: bool,
    },
}

pub fn op() -> impl Strategy<Value = Op> {
    let name = || 0..FEW;
    let cluster = || 0..CLUSTERS.len();
    prop_oneof![
        1 => Just(Op::Epoch),
        5 => ((name(), 1..4u32, 0..3u64, -1..2i32, 0..3u32, 0..6usize, 0..6u8, 0..4u64), 0..12usize, 0..60_000u64, 0..16usize, 0..6u32)
            .prop_map(|((name, count, gpus, priority, retries, pool, firm, lasts), after, ttl, reads, more)| Op::Submit {
                name, count, gpus, priority, retries, pool, firm: firm == 0, lasts, after, ttl, reads, more: more.saturating_sub(2),
            }),
        1 => any::<usize>().prop_map(|which| Op::GrowAgain { which }),
        2 => (0..DATA.len(), 0..200u64, 0..5usize).prop_map(|(name, gib, places)| Op::SetData { name, gib, places }),
        1 => (0..DATA.len()).prop_map(|name| Op::DeleteData { name }),
        3 => (0..POOLS.len(), 0..6usize, 0..5u64, 0..12u64, 1..4u32, any::<bool>(), any::<bool>())
            .prop_map(|(name, parent, reservation, limit, share, kept, within)| Op::SetPool {
                name, parent, reservation, limit, share, kept, within,
            }),
        1 => any::<usize>().prop_map(|which| Op::PreemptAgain { which }),
        1 => (0..POOLS.len()).prop_map(|name| Op::DeletePool { name }),
        1 => (0..POOLS.len(), 0..9u64).prop_map(|(name, gpus)| Op::Raise { name, gpus }),
        1 => (0..POOLS.len()).prop_map(|pool| Op::Owner { pool }),
        6 => (1..4usize).prop_map(|limit| Op::Plan { limit }),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(which, older_epoch)| Op::BindAgain { which, older_epoch }),
        12 => (name(), prop_oneof![9 => Just(None), 1 => cluster().prop_map(Some)], 0..8u32, 0..8u64, 0..STATES.len(), 0..8u8)
            .prop_map(|(name, cluster, attempt, revision, state, size)| Op::Report {
                name,
                cluster: cluster.unwrap_or(usize::MAX),
                attempt_back: attempt / 7,
                revision_back: revision / 6,
                state,
                size,
            }),
        4 => (cluster(), 1..3u128, any::<bool>(), 0..5usize, 0..STATES.len())
            .prop_map(|(cluster, life, took_all, forgets, state)| Op::Join { cluster, life, took_all, forgets, state }),
        2 => cluster().prop_map(|cluster| Op::Lose { cluster }),
        2 => name().prop_map(|name| Op::Cancel { name }),
        1 => name().prop_map(|name| Op::Delete { name }),
        1 => name().prop_map(|name| Op::Expire { name }),
        2 => (name(), 0..4u32)
            .prop_map(|(name, attempt)| Op::Forget { name, attempt_back: attempt / 3 }),
        3 => (name(), 0..4u32, 0..4u8).prop_map(|(name, attempt, older)| Op::Fence {
            name, attempt_back: attempt / 3, older_epoch: older == 0,
        }),
        4 => (0..50_000u64).prop_map(|ms| Op::Tick { ms }),
        1 => (1_000_000..20_000_000u64).prop_map(|ms| Op::Tick { ms }),
        3 => cluster().prop_map(|cluster| Op::CatchUp { cluster }),
        3 => (cluster(), 0..7u8).prop_map(|(cluster, how)| Op::Cordon { cluster, how }),
        1 => (cluster(), any::<bool>()).prop_map(|(cluster, lost_for_good)| Op::Remove { cluster, lost_for_good }),
    ]
}

/// A full fleet that two pools share, where now one and now the other asks for more: room is lent and taken back.
pub fn lending() -> impl Strategy<Value = Vec<Op>> {
    let name = || 0..NAMES.len();
    let pool = |name, reservation, share| Op::SetPool {
        name,
        parent: 5,
        reservation,
        limit: 11,
        share,
        kept: false,
        within: share == 3,
    };
    let one = prop_oneof![
        6 => (name(), 1..3u32, 1..3u64, -1..2i32, 0..4usize, 0..9u8, 0..5u32).prop_map(
            |(name, count, gpus, priority, pool, firm, more)| Op::Submit {
                name, count, gpus, priority, retries: 1, pool, firm: firm == 0, lasts: u64::from(firm) % 4, after: 99, ttl: 0, reads: 99, more,
            }
        ),
        6 => Just(Op::Plan { limit: 4 }),
        4 => (0..CLUSTERS.len()).prop_map(|cluster| Op::CatchUp { cluster }),
        5 => (10_000..40_000u64).prop_map(|ms| Op::Tick { ms }),
        // Long enough for some to have had much.
        1 => (1_000_000..20_000_000u64).prop_map(|ms| Op::Tick { ms }),
        5 => (name(), prop_oneof![4 => Just(2usize), 1 => Just(4), 2 => Just(5)], 0..8u8)
            .prop_map(|(name, state, size)| Op::Report { name, cluster: 9, attempt_back: 0, revision_back: 0, state, size }),
        1 => any::<usize>().prop_map(|which| Op::GrowAgain { which }),
        1 => any::<usize>().prop_map(|which| Op::PreemptAgain { which }),
        1 => (0..2usize, 0..4u64, 1..4u32).prop_map(move |(name, reservation, share)| pool(name, reservation, share)),
        1 => (0..2usize, 0..9u64).prop_map(|(name, gpus)| Op::Raise { name, gpus }),
        1 => name().prop_map(|name| Op::Cancel { name }),
        1 => name().prop_map(|name| Op::Delete { name }),
    ];
    let join = |cluster| Op::Join { cluster, life: 1, took_all: true, forgets: 9, state: 2 };
    prop::collection::vec(one, 20..120).prop_map(move |ops| {
        let first = [Op::Epoch, join(0), join(1), pool(0, 2, 1), pool(1, 2, 1)];
        first.into_iter().chain(ops).collect()
    })
}

/// Elastic workloads in a fleet with room, where others come and go: they grow, and give way.
pub fn stretching() -> impl Strategy<Value = Vec<Op>> {
    let name = || 0..NAMES.len();
    let one = prop_oneof![
        4 => (name(), 1..3u32, 0..3u64, -1..2i32, 0..5u32).prop_map(
            |(name, count, gpus, priority, more)| Op::Submit {
                name, count, gpus, priority, retries: 1, pool: 5, firm: false, lasts: 0, after: 99, ttl: 0, reads: 99, more,
            }
        ),
        7 => Just(Op::Plan { limit: 8 }),
        4 => (0..CLUSTERS.len()).prop_map(|cluster| Op::CatchUp { cluster }),
        5 => (10_000..60_000u64).prop_map(|ms| Op::Tick { ms }),
        9 => (name(), prop_oneof![9 => Just(2usize), 1 => Just(4)], 0..8u8)
            .prop_map(|(name, state, size)| Op::Report { name, cluster: 9, attempt_back: 0, revision_back: 0, state, size }),
        1 => any::<usize>().prop_map(|which| Op::GrowAgain { which }),
        1 => any::<usize>().prop_map(|which| Op::PreemptAgain { which }),
        1 => (0..CLUSTERS.len(), 1..3u128, any::<bool>())
            .prop_map(|(cluster, life, took_all)| Op::Join { cluster, life, took_all, forgets: 9, state: 2 }),
        1 => (0..CLUSTERS.len()).prop_map(|cluster| Op::Lose { cluster }),
        1 => name().prop_map(|name| Op::Delete { name }),
    ];
    let join = |cluster| Op::Join { cluster, life: 1, took_all: true, forgets: 9, state: 2 };
    prop::collection::vec(one, 20..120)
        .prop_map(move |ops| [Op::Epoch, join(0), join(1)].into_iter().chain(ops).collect())
}

/// The same, where clusters are cordoned, drained and opened again, and now and then removed.
pub fn draining() -> impl Strategy<Value = Vec<Op>> {
    let cordon = prop_oneof![
        9 => (0..CLUSTERS.len(), 0..7u8).prop_map(|(cluster, how)| Op::Cordon { cluster, how }),
        1 => (0..CLUSTERS.len(), any::<bool>()).prop_map(|(cluster, lost_for_good)| Op::Remove { cluster, lost_for_good }),
    ];
    let cordons = prop::collection::vec((any::<prop::sample::Index>(), cordon), 1..12);
    (prop_oneof![lending(), stretching()], cordons).prop_map(|(mut ops, cordons)| {
        for (at, cordon) in cordons {
            // Behind the epoch and both joins.
            ops.insert(3 + at.index(ops.len() - 2), cordon);
        }
        ops
    })
}
