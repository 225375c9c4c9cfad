//! Lean clients, so that the load generator takes as little as it can of the machine that the measured share with it: a
//! request is one write and its answer's head and body are looked at no further than needed.

pub mod etcd;
pub mod tidewater;
