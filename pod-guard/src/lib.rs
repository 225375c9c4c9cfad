//! Ends an attempt once nobody lets it go on.
//!
//! Here is the program that does so in pods ([`pod`]), and what it shares with the guard of attempts that run as processes of a machine, which
//! is the agent's: the deadline ([`fence`]), the clock that it is kept by ([`clock`]), processes ([`sys`], [`sweep`]). How the program and the
//! agent talk is in [`words`]. Few dependencies and no async runtime: the program is linked statically and copied into images of all kinds.

pub mod clock;
pub mod fence;
pub mod pod;
pub mod sweep;
pub mod sys;
pub mod words;

/// The variable by which every process of an attempt can be found, whoever its parent has become.
pub const MARK: &str = "TIDEWATER_ATTEMPT";

/// The variable that says which member a process belongs to.
pub const MEMBER: &str = "TIDEWATER_MEMBER";
