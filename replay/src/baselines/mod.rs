//! Policies that ours is compared with: what others do today, and what the literature does. Apart from the product's engine, and
//! written for these replays only.

mod best_fit;
mod fgd;
mod first_fit;
mod first_to_admit;
mod most_free_memory;
mod random;

pub use best_fit::BestFit;
pub use fgd::Fgd;
pub use first_fit::FirstFit;
pub use first_to_admit::FirstToAdmit;
pub use most_free_memory::MostFreeMemory;
pub use random::Random;
