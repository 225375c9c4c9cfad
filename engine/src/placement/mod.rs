//! Where a gang can go. Owns the free room of each cluster during one plan (`rooms`), the exact question whether a gang
//! fits (`fit`), what keeps it out (`obstacles`) and which of several places is best (`score`). Reads state and capacity,
//! changes neither; called by `plan`.

pub(crate) mod candidates;
pub(crate) mod fit;
pub(crate) mod holes;
pub(crate) mod obstacles;
pub(crate) mod rooms;
pub(crate) mod score;
