//! What must hold, each in a file of its own, with code that shares none with what it checks: an invariant sees facts, keeps
//! its own books of them, and says what is wrong. The numbers are those of the project's list of invariants.

mod agent_word;
mod agents_epochs;
mod alive;
mod attempts_grow;
mod cancel_final;
mod carried_out;
mod consensus;
mod cordons;
mod corruption;
mod devices;
mod done_in_time;
mod gangs;
mod hard_state;
mod no_loss;
mod one_live;
mod quotas;
mod sequences;
#[path = "../../../../engine/tests/support/slow_line.rs"]
mod slow_line;
#[path = "../../../../engine/tests/support/slow_pools.rs"]
#[allow(dead_code, clippy::unwrap_used)]
mod slow_pools;
mod state_hash;
mod stops_at_failure;
mod terminal;

use protocol::ids::{ClusterName, NodeName};
use protocol::sku::Sku;

use super::facts::Fact;

/// One thing that must hold.
pub(crate) trait Invariant {
    /// Its number and name.
    fn name(&self) -> &'static str;

    /// Something was seen; an error says what does not hold.
    fn observe(&mut self, at_us: u64, fact: &Fact<'_>) -> Result<(), String>;
}

/// A node of the world.
#[derive(Debug, Clone)]
pub(crate) struct NodeLayout {
    pub name: NodeName,
    pub sku: Sku,
    pub devices: u16,
    pub cpu_milli: u64,
    pub memory_mib: u64,
}

/// The world's clusters and nodes, as they were made.
pub(crate) type Layout = Vec<(ClusterName, Vec<NodeLayout>)>;

/// Every invariant, for a new world.
pub(crate) fn all(layout: &Layout) -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(alive::Alive),
        Box::new(stops_at_failure::StopsAtFailure),
        Box::<no_loss::NoLoss>::default(),
        Box::<one_live::OneLive>::default(),
        Box::<attempts_grow::AttemptsGrow>::default(),
        Box::<agents_epochs::AgentsEpochs>::default(),
        Box::new(devices::OneOwner::new(layout)),
        Box::new(gangs::Gangs::new(layout)),
        Box::<sequences::Sequences>::default(),
        Box::<state_hash::StateHash>::default(),
        Box::<consensus::Consensus>::default(),
        Box::<hard_state::HardStates>::default(),
        Box::<agent_word::AgentWord>::default(),
        Box::new(corruption::Corruption),
        Box::<cancel_final::CancelFinal>::default(),
        Box::<terminal::Terminal>::default(),
        Box::<quotas::Quotas>::default(),
        Box::<cordons::Cordons>::default(),
        Box::new(done_in_time::DoneInTime),
    ]
}
