//! System tests that need code of their own: the simulation of a whole federation from one seed.

pub mod simulation;
