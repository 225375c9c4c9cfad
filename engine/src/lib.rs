//! The replicated state machine and every decision. Pure: time, randomness and identity come in as inputs, decisions go
//! out as data with their reasons. Depends on protocol, serde, thiserror and collections alone.
//!
//! Two entrances: [`State::apply`] takes one committed command and is run by every replica; [`plan::plan`] reads state and
//! capacity and proposes bindings, and is run by the leader alone: what it proposes becomes commands, which `apply` checks
//! again.

pub mod ahead;
pub mod capacity;
pub mod commands;
pub mod data;
pub mod effects;
pub mod lifecycle;
mod placement;
pub mod plan;
pub mod planted;
pub mod pools;
mod queue;
pub mod reasons;
pub mod state;
pub mod token_keys;

pub use commands::{Applied, Command};
pub use effects::Effect;
pub use lifecycle::Phase;
pub use placement::placer::Placer;
pub use placement::rooms::Order;
pub use state::State;
