//! Who is who: the federation's own CA. People's identities, join tokens and roles come with a later version.

pub mod ca;
