//! raft logs through slog: its records go on to tracing, target `raft`.

use std::fmt::{self, Write};

use slog::{Drain, KV, Level, Logger, Never, OwnedKVList, Record, Serializer, o};

struct ToTracing;

/// Writes `key=value` for each.
struct Pairs(String);

impl Serializer for Pairs {
    fn emit_arguments(&mut self, key: slog::Key, value: &fmt::Arguments<'_>) -> slog::Result {
        Ok(write!(self.0, " {key}={value}")?)
    }
}

impl Drain for ToTracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        // tracing's macros want the level at compile time.
        macro_rules! forward {
            ($level:expr) => {
                if tracing::enabled!(target: "raft", $level) {
                    tracing::event!(target: "raft", $level, "{}{}", record.msg(), pairs(record, values))
                }
            };
        }
        match record.level() {
            Level::Critical | Level::Error => forward!(tracing::Level::ERROR),
            Level::Warning => forward!(tracing::Level::WARN),
            Level::Info => forward!(tracing::Level::INFO),
            Level::Debug => forward!(tracing::Level::DEBUG),
            Level::Trace => forward!(tracing::Level::TRACE),
        }
        Ok(())
    }
}

fn pairs(record: &Record<'_>, values: &OwnedKVList) -> String {
    let mut pairs = Pairs(String::new());
    // A value that can't be formatted is left out of the log line, no more.
    let _ = record.kv().serialize(record, &mut pairs);
    let _ = values.serialize(record, &mut pairs);
    pairs.0
}

/// raft's logger.
pub(super) fn logger() -> Logger {
    Logger::root(ToTracing, o!())
}
