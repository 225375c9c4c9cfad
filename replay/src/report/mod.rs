//! Results for people: plots as SVG, without a library, so that a result is one text file that a diff can show.

mod plot;
mod saturation;
mod waits;

pub use plot::{Line, Range, lines, ranges};
pub use saturation::{Kind, by_kind, saturation};
pub use waits::{Ran, figures, label, waits};
