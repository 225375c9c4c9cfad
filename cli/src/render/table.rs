//! Tables without borders: columns that line up, wrapped to the terminal; into a pipe one line a row, as it is.

use comfy_table::{Attribute, Cell, CellAlignment, Color, ColumnConstraint, ContentArrangement, presets};

use super::Out;

/// Blanks between columns.
const GAP: u16 = 3;
/// The least that a long text in the last column is squeezed to.
const SHORTEST_LAST: usize = 16;

/// How a cell stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// It does not.
    Plain,
    /// As it should be.
    Good,
    /// In between.
    Pending,
    /// It needs a look.
    Bad,
    /// It hardly matters.
    Faint,
}

/// A table in the making.
pub struct Table {
    headers: Vec<&'static str>,
    numbers: Vec<usize>,
    rows: Vec<Vec<(String, Tone)>>,
}

/// An unremarkable cell.
pub fn cell(text: impl ToString) -> (String, Tone) {
    (text.to_string(), Tone::Plain)
}

/// A cell for what may be unknown; a dash then, never 0.
pub fn known<T: ToString>(value: Option<T>) -> (String, Tone) {
    value.map_or_else(|| ("-".to_owned(), Tone::Faint), cell)
}

/// A count that is bad unless it is 0.
pub fn trouble(count: u64) -> (String, Tone) {
    (count.to_string(), if count == 0 { Tone::Faint } else { Tone::Bad })
}

/// A phase in its tone.
pub fn phase(phase: &str) -> (String, Tone) {
    let tone = match phase {
        "Succeeded" | "Running" | "Ready" => Tone::Good,
        "Failed" | "Lost" => Tone::Bad,
        "Cancelled" => Tone::Faint,
        _ => Tone::Pending,
    };
    (phase.to_owned(), tone)
}

impl Table {
    /// A table with these columns; a column whose heading begins with `#` holds numbers and is shown without the `#`.
    pub fn new(headers: &[&'static str]) -> Self {
        let numbers = headers.iter().enumerate().filter(|(_, h)| h.starts_with('#')).map(|(i, _)| i).collect();
        Self { headers: headers.iter().map(|h| h.trim_start_matches('#')).collect(), numbers, rows: vec![] }
    }

    /// Adds a row.
    pub fn row(&mut self, row: Vec<(String, Tone)>) {
        debug_assert_eq!(row.len(), self.headers.len(), "a row has a cell for each column");
        self.rows.push(row);
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Columns that a terminal leaves to the last one, which holds the long texts and alone is wrapped. None: it leaves
    /// too few, and the lines are better left to the terminal to break.
    fn room_for_last(&self, width: u16) -> Option<usize> {
        let (last, others) = self.headers.split_last()?;
        let content = |i: usize| self.rows.iter().map(|row| row[i].0.chars().count()).max().unwrap_or(0);
        let gap = usize::from(GAP);
        let taken: usize = others.iter().enumerate().map(|(i, header)| header.len().max(content(i)) + gap).sum();
        let needed = content(others.len()).max(last.len()).min(SHORTEST_LAST);
        usize::from(width).checked_sub(taken + gap).filter(|room| *room >= needed)
    }

    /// The table as text within a section: two columns further right.
    pub fn indented(&self, out: &Out) -> String {
        let narrower = Out { width: out.width.map(|width| width.saturating_sub(2)), ..out.clone() };
        self.text(&narrower).lines().map(|line| format!("  {line}\n")).collect()
    }

    /// The table as text, each line with its end.
    pub fn text(&self, out: &Out) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).force_no_tty();
        table.set_content_arrangement(ContentArrangement::Disabled);
        if out.colour {
            table.enforce_styling();
        }
        table.set_header(self.headers.iter().map(|h| Cell::new(h).add_attribute(Attribute::Bold)));
        for row in &self.rows {
            table.add_row(row.iter().map(|(text, tone)| {
                // One line a row: a line break within a message would break what reads this line by line.
                let cell = Cell::new(text.replace('\n', " "));
                match tone {
                    Tone::Plain => cell,
                    Tone::Good => cell.fg(Color::Green),
                    Tone::Pending => cell.fg(Color::Yellow),
                    Tone::Bad => cell.fg(Color::Red),
                    Tone::Faint => cell.fg(Color::DarkGrey),
                }
            }));
        }
        let last_fits = out.width.and_then(|width| self.room_for_last(width));
        if let (Some(width), Some(_)) = (out.width, last_fits) {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        let last = self.headers.len().saturating_sub(1);
        for (i, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, GAP));
            if last_fits.is_some() && i < last {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
            if self.numbers.contains(&i) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Format;

    fn out(width: Option<u16>, colour: bool) -> Out {
        Out { format: Format::Table, colour, error_colour: false, width }
    }

    fn table() -> Table {
        let mut table = Table::new(&["NAME", "#GPUS", "MESSAGE"]);
        table.row(vec![cell("a"), cell(8), cell("waits for\nroom in one of the clusters of this region")]);
        table.row(vec![cell("longer-name"), known::<u64>(None), phase("Failed")]);
        table
    }

    #[test]
    fn a_pipe_gets_one_plain_line_a_row() {
        assert_eq!(
            table().text(&out(None, false)),
            "NAME          GPUS   MESSAGE\n\
             a                8   waits for room in one of the clusters of this region\n\
             longer-name      -   Failed\n"
        );
    }

    #[test]
    fn a_narrow_terminal_wraps_and_no_line_is_wider_than_it() {
        let text = table().text(&out(Some(40), false));
        assert!(text.lines().count() > 3, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
    }

    #[test]
    fn only_the_last_column_wraps_and_a_terminal_too_narrow_for_that_breaks_the_lines_itself() {
        let wrapped = table().text(&out(Some(40), false));
        assert!(wrapped.contains("longer-name"), "{wrapped}");
        assert_eq!(table().text(&out(Some(30), false)), table().text(&out(None, false)));
        assert_eq!(table().text(&out(Some(0), false)), table().text(&out(None, false)));
    }

    #[test]
    fn colours_come_only_when_asked_for() {
        assert!(table().text(&out(None, true)).contains('\u{1b}'));
        assert!(!table().text(&out(None, false)).contains('\u{1b}'));
    }
}
