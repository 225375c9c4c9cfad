//! The bugs that are planted in the product's code behind the feature `planted`, to measure the simulation: each must be found
//! within a fixed number of seeds.

/// One planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bug {
    /// Its name.
    pub name: &'static str,
}

/// Every bug that can be planted.
pub fn all() -> Vec<Bug> {
    let engine = engine::planted::BUGS.iter().map(|(name, _)| Bug { name });
    let coordinator = coordinator::planted::BUGS.iter().map(|(name, _)| Bug { name });
    let agent = agent::planted::NAMES.iter().map(|name| Bug { name });
    engine.chain(coordinator).chain(agent).collect()
}

/// Whether this build can have planted bugs.
pub const POSSIBLE: bool = cfg!(feature = "planted");

/// Plants this bug, and no other, in the code that this thread runs from now on.
#[cfg(feature = "planted")]
pub fn select(bug: Option<Bug>) {
    protocol::planted::select(bug.map(|bug| bug.name));
}

/// Nothing: this build has no planted bugs.
#[cfg(not(feature = "planted"))]
pub fn select(_bug: Option<Bug>) {}
