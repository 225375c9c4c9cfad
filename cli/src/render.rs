//! What people and programs see: tables, objects, explanations. Everything is made into text here and written in one
//! place, which knows about terminals, colours and readers that go away. It asks the server nothing.

pub mod age;
pub mod capacity;
pub mod clusters;
pub mod data;
pub mod explanation;
pub mod obstacle;
pub mod pools;
pub mod progress;
pub mod table;
pub mod workload;

use std::io::{IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::args::{Format, Global};
use crate::exit::Failure;

/// Where output goes and how it looks there.
#[derive(Debug, Clone)]
pub struct Out {
    /// How to print.
    pub format: Format,
    /// Whether standard output takes colours.
    pub colour: bool,
    /// Whether standard error takes colours.
    error_colour: bool,
    /// Columns of the terminal on standard output; none: no terminal, nothing is wrapped.
    pub width: Option<u16>,
}

/// Whether a stream takes colours: <https://no-color.org> and <https://bixense.com/clicolors>.
fn colours(no_color: bool, terminal: bool) -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if no_color || set("NO_COLOR").is_some() {
        return false;
    }
    if set("CLICOLOR_FORCE").is_some_and(|value| value != "0") {
        return true;
    }
    terminal && set("TERM").is_none_or(|term| term != "dumb")
}

impl Out {
    /// As the command line and the environment say.
    pub fn new(global: &Global) -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self {
            format: global.output,
            colour: colours(global.no_color, terminal),
            error_colour: colours(global.no_color, std::io::stderr().is_terminal()),
            width: terminal.then(|| comfy_table::Table::new().width()).flatten(),
        }
    }

    /// Plain tables, without colours and of any width.
    pub fn plain() -> Self {
        Self { format: Format::Table, colour: false, error_colour: false, width: None }
    }

    /// Writes text to standard output.
    pub fn print(&self, text: &str) -> anyhow::Result<()> {
        self.bytes(text.as_bytes())
    }

    /// Writes bytes to standard output and flushes them. A reader that is gone, as `head` goes, ends the command in peace.
    pub fn bytes(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|e| match e.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::ReaderGone.into(),
            _ => anyhow::anyhow!("can't write to standard output: {e}"),
        })
    }

    /// Prints an object as JSON or YAML, or the text that `people` makes of it.
    pub fn object<T: Serialize>(&self, object: &T, people: impl FnOnce() -> String) -> anyhow::Result<()> {
        match self.format {
            Format::Json => self.print(&format!("{}\n", serde_json::to_string_pretty(object)?)),
            Format::Yaml => self.print(&yaml(object)?),
            Format::Table | Format::Wide => self.print(&people()),
        }
    }

    /// Whether more columns are wanted.
    pub fn wide(&self) -> bool {
        self.format == Format::Wide
    }

    /// Whether a person reads, rather than a program.
    pub fn for_people(&self) -> bool {
        matches!(self.format, Format::Table | Format::Wide)
    }

    /// A line on standard error that says what went wrong.
    pub fn error(&self, text: &str) {
        self.say("error: ", AnsiColor::Red, text);
    }

    /// A line on standard error that says what to look at.
    pub fn warn(&self, text: &str) {
        self.say("warning: ", AnsiColor::Yellow, text);
    }

    /// A line on standard error.
    pub fn note(&self, text: &str) {
        self.say("", AnsiColor::White, text);
    }

    fn say(&self, label: &str, colour: AnsiColor, text: &str) {
        let style = if self.error_colour && !label.is_empty() { colour.on_default().bold() } else { Style::new() };
        // Nobody is left to be told where standard error is gone too.
        let _ = writeln!(std::io::stderr().lock(), "{style}{label}{style:#}{text}");
    }

    /// A heading within a text for people.
    pub fn heading(&self, text: &str) -> String {
        let style = if self.colour { Style::new().bold() } else { Style::new() };
        format!("{style}{text}{style:#}")
    }
}

fn yaml<T: Serialize>(object: &T) -> anyhow::Result<String> {
    // By way of JSON's model, so that both formats name the same fields in the same way.
    let text = serde_saphyr::to_string(&serde_json::to_value(object)?)?;
    Ok(if text.ends_with('\n') { text } else { text + "\n" })
}
