//! Waiting for workloads to end, with a live line for each on terminals and a plain line for each change elsewhere, and
//! with their logs where they are wanted.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::try_join_all;
use indicatif::MultiProgress;
use protocol::api::WorkloadObject;
use protocol::ids::WorkloadKey;
use tokio::sync::Notify;

use super::follow;
use crate::client::{Change, Client, Scope, default_namespace};
use crate::exit::Failure;
use crate::render::workload::{is_terminal, phase_of};
use crate::render::{Out, progress};

/// How long logs may go on after their workloads have ended.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Waits until every workload has ended. An error unless all of them succeeded.
pub async fn until_ended(client: &Client, keys: &[WorkloadKey], logs: bool, out: &Out) -> anyhow::Result<()> {
    let lines = Lines::new(keys);
    let over = Notify::new();
    let status = async {
        let ends = ends(client, keys, &lines, out).await;
        over.notify_one();
        ends
    };
    let logs = async {
        let several = keys.len() > 1;
        let all = try_join_all(keys.iter().filter(|_| logs).map(|key| show_logs(client, key, several, &lines, out)));
        // The status ends the command even where a log does not; but the log's last words may come first.
        let overdue = async {
            over.notified().await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            shown = all => shown.map(|_| ()),
            () = overdue => Ok(()),
        }
    };
    let work = futures_util::future::try_join(status, logs);
    let ends = tokio::select! {
        done = work => done?.0,
        _ = tokio::signal::ctrl_c() => {
            lines.clear();
            let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
            let names = names.join(" ");
            return Err(Failure::Interrupted(format!("not waiting any longer; {names} goes on (`tidewater cancel {names}` ends it)")).into());
        }
    };
    lines.clear();
    let failed: Vec<String> = ends.into_values().filter_map(Result::err).collect();
    match failed.is_empty() {
        true => Ok(()),
        false => Err(Failure::Workload(failed.join("; ")).into()),
    }
}

/// How each workload ended; an error says why it was no success.
type Ends = BTreeMap<WorkloadKey, Result<(), String>>;

async fn ends(client: &Client, keys: &[WorkloadKey], lines: &Lines, out: &Out) -> anyhow::Result<Ends> {
    let scope = match keys {
        [one] => Scope::Workload(one.clone()),
        [first, rest @ ..] if rest.iter().all(|key| key.namespace == first.namespace) => {
            Scope::Namespace(first.namespace.clone())
        }
        _ => Scope::All,
    };
    let (mut changes, mut ends) = (client.changes(scope), Ends::new());
    while ends.len() < keys.len() {
        let change = changes.next().await?;
        let (Change::Now(object) | Change::Gone(object)) = &change;
        let namespace = object.metadata.namespace.clone().unwrap_or_else(default_namespace);
        let key = WorkloadKey { namespace, name: object.metadata.name.clone() };
        if !keys.contains(&key) || ends.contains_key(&key) {
            continue;
        }
        let end = match &change {
            Change::Gone(_) => Some(Err(format!("{} was deleted", key.name))),
            Change::Now(object) if is_terminal(object) => Some(verdict(object)),
            Change::Now(_) => None,
        };
        lines.show(&key, object, out);
        if let Some(end) = end {
            ends.insert(key, end);
        }
    }
    Ok(ends)
}

fn verdict(object: &WorkloadObject) -> Result<(), String> {
    let phase = phase_of(object);
    if phase == "Succeeded" {
        return Ok(());
    }
    let message = object.status.as_ref().map(|s| s.message.as_str()).filter(|m| !m.is_empty());
    let message = message.map(|m| format!(": {m}")).unwrap_or_default();
    Err(format!("{} {}{message}", object.metadata.name, phase.to_lowercase()))
}

/// Prints a workload's logs above the live lines. A log that can't be had is told, and does not end the wait.
async fn show_logs(client: &Client, key: &WorkloadKey, prefixed: bool, lines: &Lines, out: &Out) -> anyhow::Result<()> {
    let mut pending: Vec<u8> = vec![];
    let prefix = format!("[{}] ", key.name);
    let shown = follow::logs(client, key, follow::From::First, None, |bytes| {
        if !prefixed {
            return lines.above(|| out.bytes(bytes));
        }
        pending.extend_from_slice(bytes);
        while let Some(end) = pending.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            lines.above(|| out.bytes(&[prefix.as_bytes(), &line].concat()))?;
        }
        Ok(())
    })
    .await;
    if !pending.is_empty() {
        lines.above(|| out.bytes(&[prefix.as_bytes(), &pending, b"\n"].concat()))?;
    }
    match shown {
        Err(e) if !matches!(e.downcast_ref(), Some(Failure::ReaderGone)) => lines.above(|| {
            out.warn(&format!("{}: its log can't be followed: {e:#}", key.name));
            Ok(())
        }),
        shown => shown,
    }
}

/// A live line for each workload.
struct Lines {
    all: MultiProgress,
    bars: BTreeMap<WorkloadKey, indicatif::ProgressBar>,
    told: std::cell::RefCell<BTreeMap<WorkloadKey, String>>,
}

impl Lines {
    fn new(keys: &[WorkloadKey]) -> Self {
        let all = MultiProgress::new();
        let bar = |key: &WorkloadKey| all.add(progress::spinner(format!("{}: accepted", key.name)));
        let bars = keys.iter().map(|key| (key.clone(), bar(key))).collect();
        Self { all, bars, told: Default::default() }
    }

    /// Shows a workload's state in its live line; its end, and where live lines are hidden each new phase, as a line
    /// that stays.
    fn show(&self, key: &WorkloadKey, object: &WorkloadObject, out: &Out) {
        let phase = phase_of(object);
        let message = object.status.as_ref().map(|s| s.message.as_str()).filter(|m| !m.is_empty());
        let line = format!("{}: {phase}{}", key.name, message.map(|m| format!(": {m}")).unwrap_or_default());
        if let Some(bar) = self.bars.get(key) {
            bar.set_message(line.clone());
            if is_terminal(object) {
                bar.finish_and_clear();
            }
        }
        let is_news = self.told.borrow_mut().insert(key.clone(), phase.to_owned()).as_deref() != Some(phase);
        if is_terminal(object) || (self.all.is_hidden() && is_news) {
            self.all.suspend(|| out.note(&line));
        }
    }

    /// Writes to standard output without tearing the live lines.
    fn above(&self, write: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.all.suspend(write)
    }

    fn clear(&self) {
        self.bars.values().for_each(indicatif::ProgressBar::finish_and_clear);
        // Lines that are drawn no more; a terminal that cannot be cleared is no reason to fail.
        let _ = self.all.clear();
    }
}
