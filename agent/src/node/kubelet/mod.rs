//! Whose pods have which GPUs: the node's kubelet is asked every few seconds, on its pod-resources socket
//! (<https://kubernetes.io/docs/concepts/extend-kubernetes/compute-storage-net/device-plugins/#monitoring-device-plugin-resources>).
//!
//! `call` asks, by gRPC; `list` reads the answer. Nothing that goes wrong here stops the readings of the GPUs.

mod call;
mod list;

use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::node::{Holders, MAX_HELD};
use tokio::time::{Instant, sleep, timeout};

pub use call::CallError;

use super::NodeSampler;

/// Between two questions.
const EVERY: Duration = Duration::from_secs(2);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// While a kubelet is away it gives no device to anybody, so that what it said last holds for a while: as long as it may take to start again.
const HOLDS: Duration = Duration::from_secs(30);

/// Asks for as long as it is polled, and hands on what is answered. `tell` hears of what a person should know: once when the kubelet stops
/// answering, and once when it does again.
pub async fn follow(socket: PathBuf, sampler: &NodeSampler, mut tell: impl FnMut(String)) {
    let mut state = State::default();
    loop {
        let answer = ask(&socket).await;
        let (holders, news) = state.take(answer, Instant::now());
        news.into_iter().for_each(&mut tell);
        if let Some(holders) = holders {
            sampler.publish_holders(holders);
        }
        sleep(EVERY).await;
    }
}

/// Asks once; an error is told in words.
async fn ask(socket: &Path) -> Result<Holders, String> {
    let named =
        |why: String| format!("whose pods have which GPUs is not known: the kubelet at {}: {why}", socket.display());
    let answer = timeout(PATIENCE, call::list(socket)).await;
    let answer = answer.map_err(|_| named(format!("no answer within {} s", PATIENCE.as_secs())))?;
    let pods = list::gpus(&answer.map_err(|e| named(e.to_string()))?).map_err(|e| named(e.to_string()))?;
    match pods.iter().map(|pod| pod.devices.len()).sum::<usize>() {
        held if held > MAX_HELD => {
            Err(named(format!("{held} devices are given out; at most {MAX_HELD} are looked at")))
        }
        _ => Ok(Holders::Known { pods }),
    }
}

/// What was answered so far.
#[derive(Debug, Default)]
struct State {
    known_at: Option<Instant>,
    failing: bool,
}

impl State {
    /// What is to be handed on after this answer, and what a person should know.
    fn take(&mut self, answer: Result<Holders, String>, now: Instant) -> (Option<Holders>, Option<String>) {
        match answer {
            Ok(holders) => {
                self.known_at = Some(now);
                let back = std::mem::take(&mut self.failing);
                (Some(holders), back.then(|| "the kubelet says again whose pods have which GPUs".to_owned()))
            }
            Err(cause) => {
                let news = (!std::mem::replace(&mut self.failing, true)).then(|| cause.clone());
                let holds = self.known_at.is_some_and(|at| now.duration_since(at) < HOLDS);
                ((!holds).then_some(Holders::Unknown { cause }), news)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_known_holds_while_a_kubelet_starts_again_and_a_person_hears_of_it_once() {
        let mut state = State::default();
        let (known, lost) = (|| Ok(Holders::Known { pods: vec![] }), || Err("no socket".to_owned()));
        let unknown = || Some(Holders::Unknown { cause: "no socket".into() });
        let start = Instant::now();
        assert_eq!(state.take(lost(), start), (unknown(), Some("no socket".into())));
        assert_eq!(state.take(lost(), start), (unknown(), None));
        let (holders, news) = state.take(known(), start);
        assert_eq!((holders, news.is_some()), (known().ok(), true));
        assert_eq!(state.take(known(), start), (known().ok(), None));
        assert_eq!(state.take(lost(), start + HOLDS / 2), (None, Some("no socket".into())));
        assert_eq!(state.take(lost(), start + HOLDS), (unknown(), None));
    }
}
