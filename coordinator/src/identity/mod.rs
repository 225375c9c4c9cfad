//! Who is who: the federation's own CA, and the tokens by which workloads show others who they are. People's identities, join tokens and roles
//! come with a later version.

pub mod ca;
pub mod workload_tokens;
