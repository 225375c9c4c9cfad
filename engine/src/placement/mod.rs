//! Where a gang can go. Owns the free room of each cluster during one plan (`rooms`: `holes` of `devices`, for its `models`) and what is
//! `kept` of it for the next, the exact question
//! whether a gang fits (`fit`), what keeps it out (`obstacles`), where it failed
//! lately (`avoid`), what a place wastes (`value`, from the `mix` of what is asked for, each model's `view` of it
//! and the prices of `cutting`) and which of several places is best (`score`; the `best` of each ask, as it is `asked`, kept in an `index` from the `journal` of what changed). Reads state and capacity, changes neither; called by
//! `queue`, `plan` and, for traces, through `placer`.

mod asked;
pub(crate) mod avoid;
mod best;
pub(crate) mod candidates;
pub(crate) mod cutting;
pub(crate) mod devices;
pub(crate) mod fit;
pub(crate) mod holes;
pub(crate) mod index;
mod journal;
pub(crate) mod kept;
pub(crate) mod locality;
pub(crate) mod mix;
pub(crate) mod models;
pub(crate) mod obstacles;
pub(crate) mod placer;
pub(crate) mod price;
pub(crate) mod rooms;
pub(crate) mod score;
pub(crate) mod value;
mod view;
