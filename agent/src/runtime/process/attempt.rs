//! One attempt's task in the agent: prepare it, start its guard, follow what the guard says, pass a stop on, and settle
//! what a dead guard left.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use protocol::control::AttemptState;
use protocol::errors::FailureClass;
use protocol::ids::AttemptId;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::link::Link;
use super::tokens::TokenFiles;
use super::{Handle, Inner, Order, RuntimeError, blocking, prepare, settle, told};
use crate::clock;
use crate::guard::durable;
use crate::guard::record::{Ending, Record, Stop};
use crate::guard::socket::Status;
use crate::runtime::tokens::{self, Tokens};

/// Between tries to reach a guard that lives but does not listen yet.
const RETRY: Duration = Duration::from_millis(20);
/// Between tries to end what does not end on SIGKILL.
const SWEEP_RETRY: Duration = Duration::from_secs(5);
/// How long the adoption of a live attempt waits for its guard's first word.
const FIRST_WORD: Duration = Duration::from_secs(2);

/// A new attempt, from its order to its end.
pub(super) async fn run(inner: Arc<Inner>, record: Record, handle: Handle, order: Order) {
    let attempt = order.launch.attempt;
    let mut stop = handle.stop.subscribe();
    let ending = tokio::select! {
        // A stop that is already there wins over a preparation that is quick.
        biased;
        stop = stopped(&mut stop) => stop.why.ending(),
        begun = begin(&inner, &record, &handle, &order) => match begun {
            Ok((child, tokens)) => return follow(inner, attempt, record, handle, Some(child), tokens).await,
            Err(message) => Ending::Failed { class: FailureClass::Infrastructure, message, exit_code: None },
        },
    };
    settle_until_gone(&inner, attempt, &record, &handle, Some(ending)).await;
}

/// Everything up to the start of the guard, with the attempt's tokens, which are there by then. The error is what a person reads. Dropped
/// in the middle, it leaves no process: the guard is started last, at once.
async fn begin(inner: &Arc<Inner>, record: &Record, handle: &Handle, order: &Order) -> Result<(Child, Tokens), String> {
    let attempt = order.launch.attempt;
    let mut tokens = Tokens::of(&order.launch, inner.tokens.get().cloned(), tokens::random);
    let files = TokenFiles::of(record);
    files.make(order.launch.spec.tokens.len()).map_err(|e| format!("cannot make the folder of its tokens: {e}"))?;
    let waits = |waiting_for| async move {
        let state = AttemptState::Starting { waiting_for };
        if *handle.state.borrow() != state {
            inner.emit(attempt, handle, state).await;
        }
    };
    tokens.fill(&files, waits).await;
    let (told, mut telling) = watch::channel(String::new());
    let progress = Arc::new(move |text: &str| {
        told.send_replace(text.to_owned());
    });
    let preparing = prepare::plan(inner, record, order, progress);
    tokio::pin!(preparing);
    let plan = loop {
        tokio::select! {
            plan = &mut preparing => break plan?,
            Ok(()) = telling.changed() => {
                let waiting_for = telling.borrow_and_update().clone();
                inner.emit(attempt, handle, AttemptState::Starting { waiting_for }).await;
            }
            // What is installed may take its time.
            never = tokens.refresh(&files) => match never {},
        }
    };
    let planned = record.clone();
    blocking(move || durable::write_json(&planned.path("plan.json"), &plan))
        .await
        .map_err(|e| format!("cannot write the attempt's plan: {e}"))?;
    inner.emit(attempt, handle, AttemptState::Starting { waiting_for: "its guard".into() }).await;
    let own_log = |e| format!("cannot open the guard's log: {e}");
    let log = std::fs::File::create(record.path("logs/guard.log")).map_err(own_log)?;
    let (program, arguments) = inner.config.guard.split_first().ok_or("no guard program is configured")?;
    Command::new(program)
        .args(arguments)
        .arg(record.dir())
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(own_log)?)
        .stderr(log)
        .spawn()
        .map(|child| (child, tokens))
        .map_err(|e| format!("cannot start the guard {}: {e}", program.display()))
}

async fn stopped(stop: &mut watch::Receiver<Option<Stop>>) -> Stop {
    match stop.wait_for(Option::is_some).await.map(|stop| *stop) {
        Ok(Some(stop)) => stop,
        // The handle is gone, and with it whoever could ask.
        _ => std::future::pending().await,
    }
}

/// An attempt that has a record from before: its final state, or its present one while a task watches it.
pub(super) async fn adopt(
    inner: &Arc<Inner>,
    attempt: AttemptId,
    record: Record,
    handle: Handle,
) -> Result<AttemptState, RuntimeError> {
    let read = record.clone();
    let found = blocking(move || {
        let stop = read.stop()?;
        let gone = read.outcome()?.filter(|outcome| outcome.gone);
        std::io::Result::Ok((stop, gone, order_of(attempt, &read)))
    });
    let (stop, gone, order) = found.await.map_err(|e| inner.failed(attempt, e))?;
    handle.stop.send_replace(stop);
    if let Some(outcome) = gone {
        remove_tokens(attempt, &record).await;
        let state = told(&outcome);
        handle.state.send_replace(state.clone());
        return Ok(state);
    }
    handle.state.send_replace(AttemptState::Starting { waiting_for: "a word from its guard".into() });
    let mut state = handle.state.subscribe();
    // How old those are that are there nobody knows: they are asked for anew.
    let source = inner.tokens.get().cloned();
    let tokens = order.map_or_else(Tokens::none, |order| Tokens::of(&order.launch, source, tokens::random));
    tokio::spawn(follow(inner.clone(), attempt, record, handle.clone(), None, tokens));
    // A guard that says nothing for now does not hold up the rest.
    let _ = tokio::time::timeout(FIRST_WORD, state.changed()).await;
    let state = state.borrow().clone();
    Ok(state)
}

/// Watches a guard until the attempt is gone, and keeps the attempt's tokens fresh.
async fn follow(
    inner: Arc<Inner>,
    attempt: AttemptId,
    record: Record,
    handle: Handle,
    child: Option<Child>,
    mut tokens: Tokens,
) {
    let files = TokenFiles::of(&record);
    tokio::select! {
        () = watch_guard(&inner, attempt, &record, &handle, child) => {}
        never = tokens.refresh(&files) => match never {},
    }
    settle_until_gone(&inner, attempt, &record, &handle, None).await;
}

/// Up to where no guard lives any more.
async fn watch_guard(inner: &Inner, attempt: AttemptId, record: &Record, handle: &Handle, mut child: Option<Child>) {
    loop {
        if let Ok(link) = Link::open(record.dir()).await {
            listen(inner, attempt, handle, link).await;
        }
        if let Some(guard) = &mut child {
            // Our own guard may not have its lock yet: only its end says that it will never take it.
            match tokio::time::timeout(RETRY, guard.wait()).await {
                Err(_) => continue,
                Ok(_) => child = None,
            }
        }
        if guard_is_dead(attempt, record).await {
            return;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Passes the guard's words on as states, and orders to stop on to the guard, until the connection ends.
async fn listen(inner: &Inner, attempt: AttemptId, handle: &Handle, mut link: Link) {
    let mut stop = handle.stop.subscribe();
    stop.mark_changed();
    let mut resize = handle.resize.subscribe();
    resize.mark_changed();
    let mut until = handle.until.subscribe();
    // What the guard asked last and nobody has answered.
    let mut asks = None;
    loop {
        let ttl_ms = until.borrow_and_update().since(clock::monotonic());
        if let Some(asked) = asks.filter(|_| ttl_ms > 0) {
            if link.go_on(asked, ttl_ms).await.is_err() {
                return;
            }
            asks = None;
        }
        let status = tokio::select! {
            status = link.next() => match status {
                Some(status) => status,
                None => return,
            },
            Ok(()) = stop.changed() => {
                let order = *stop.borrow_and_update();
                if let Some(order) = order && link.stop(order).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(()) = until.changed() => continue,
            Ok(()) = resize.changed() => {
                let ordered = *resize.borrow_and_update() > 0;
                if ordered && link.resize().await.is_err() {
                    return;
                }
                continue;
            }
        };
        let state = match status {
            Status::Starting { waiting_for } => AttemptState::Starting { waiting_for },
            Status::Running => AttemptState::Running,
            // Still the state that it was, until it is gone.
            Status::Ending | Status::Gone => continue,
            Status::Asks { asked } => {
                asks = Some(asked);
                continue;
            }
            Status::Members { gone } => {
                let gone = gone.iter().filter_map(|name| super::super::members::of_name(name)).collect();
                inner.tell_gone(attempt, handle, gone).await;
                continue;
            }
        };
        if *handle.state.borrow() != state {
            inner.emit(attempt, handle, state).await;
        }
    }
}

/// Whether no guard lives.
async fn guard_is_dead(attempt: AttemptId, record: &Record) -> bool {
    let locked = record.clone();
    match blocking(move || locked.try_lock()).await {
        Ok(None) => return false,
        // Released again at once: from here on only this task and a late guard could take it, and `settle` minds both.
        Ok(Some(lock)) => drop(lock),
        Err(e) => tracing::error!(%attempt, "cannot look at the guard's lock: {e}"),
    }
    true
}

async fn settle_until_gone(
    inner: &Inner,
    attempt: AttemptId,
    record: &Record,
    handle: &Handle,
    ending: Option<Ending>,
) {
    loop {
        let (held, ending) = (record.clone(), ending.clone());
        match blocking(move || settle::settle(&held, &attempt.to_string(), ending)).await {
            Ok(outcome) => {
                remove_tokens(attempt, record).await;
                return inner.emit(attempt, handle, told(&outcome)).await;
            }
            Err(e) => tracing::error!(%attempt, "cannot settle the attempt yet: {e}"),
        }
        tokio::time::sleep(SWEEP_RETRY).await;
    }
}

/// An attempt that is gone has no use for its tokens.
async fn remove_tokens(attempt: AttemptId, record: &Record) {
    let files = TokenFiles::of(record);
    if let Err(error) = blocking(move || files.remove()).await {
        tracing::error!(%attempt, %error, "the tokens of an ended attempt can't be removed");
    }
}

/// What was ordered, for its tokens alone: what can't be read keeps nothing else from going on.
fn order_of(attempt: AttemptId, record: &Record) -> Option<Order> {
    durable::read_json::<Order>(&record.path("order.json")).unwrap_or_else(|error| {
        tracing::error!(%attempt, %error, "the tokens of an attempt are not refreshed");
        None
    })
}
