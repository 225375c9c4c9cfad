//! Until when attempts may go on that end themselves otherwise, and the door at which the guards in their pods ask
//! ([`pod_guard::words`]). Whoever answers nothing lets nothing go on: so does a replica that does not lead, for its door is not open.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use pod_guard::words::{Key, LONGEST, Unproved};
use protocol::ids::{AttemptId, MonotonicMs};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock;

/// Guards that are connected at once; more wait. Each asks every five seconds.
const GUARDS: usize = 20_000;
/// Guards of one attempt that are counted: more than a gang has members, for what an operator makes again has a new one.
const MOST_BEGUN: usize = 200_000;
/// After which a connection on which nothing is asked is closed.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a guard may take to take its answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// After a connection could not be accepted, as where no descriptor is free.
const PAUSE: Duration = Duration::from_millis(200);

/// What is known of one attempt.
#[derive(Debug, Default)]
struct Leave {
    key: Option<Key>,
    until: Option<MonotonicMs>,
    /// Which guards were let, by their nonces.
    begun: BTreeSet<String>,
}

/// Which attempts may go on, and how their guards prove that they are theirs.
#[derive(Debug, Default)]
pub(super) struct Leaves {
    all: Mutex<BTreeMap<AttemptId, Leave>>,
}

impl Leaves {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<AttemptId, Leave>> {
        self.all.lock().expect("no holder of this lock panics")
    }

    /// Its guards have this key.
    pub(super) fn hold(&self, attempt: AttemptId, key: Key) {
        self.lock().entry(attempt).or_default().key = Some(key);
    }

    /// It may go on until then; never for shorter than was said before.
    pub(super) fn let_go_on(&self, attempt: AttemptId, until: MonotonicMs) {
        let mut all = self.lock();
        let leave = all.entry(attempt).or_default();
        leave.until = leave.until.max(Some(until));
    }

    /// It has ended.
    pub(super) fn forget(&self, attempt: AttemptId) {
        self.lock().remove(&attempt);
    }

    /// How many guards of an attempt this agent has let go on; none where it has no guards.
    pub(super) fn begun(&self, attempt: AttemptId) -> Option<usize> {
        let all = self.lock();
        all.get(&attempt).filter(|leave| leave.key.is_some()).map(|leave| leave.begun.len())
    }

    /// The answer to what a guard said at this moment; none where there is none to give.
    fn answer(&self, line: &str, now: MonotonicMs) -> Option<String> {
        let said = Unproved::read(line)?;
        let attempt: AttemptId = said.attempt().parse().ok()?;
        let mut all = self.lock();
        let Leave { key: Some(key), until: Some(until), begun } = all.get_mut(&attempt)? else { return None };
        let question = said.proved_by(key)?;
        // The guard counts from when it asked, which was before now.
        let ttl_ms = until.since(now);
        if ttl_ms == 0 {
            return None;
        }
        if begun.len() < MOST_BEGUN && !begun.contains(&question.nonce) {
            begun.insert(question.nonce.clone());
        }
        Some(question.answer(key, ttl_ms))
    }
}

/// Answers guards until cancelled.
pub(super) async fn serve(listener: TcpListener, leaves: Arc<Leaves>, tasks: TaskTracker, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(GUARDS));
    loop {
        let next = async {
            // Never closed.
            let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((place, listener.accept().await?.0))
        };
        let accepted = tokio::select! {
            accepted = next => accepted,
            () = stop.cancelled() => return,
        };
        let (place, stream) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a guard's connection was not accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (leaves, stop) = (leaves.clone(), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = converse(stream, &leaves) => {}
                () = stop.cancelled() => {}
            }
            drop(place);
        });
    }
}

/// Question by question, up to one that has no answer: the guard connects again, by then perhaps to a replica that has.
async fn converse(mut stream: TcpStream, leaves: &Leaves) {
    // Each answer is one small packet, and is waited for.
    let _ = stream.set_nodelay(true);
    let mut unread = Vec::with_capacity(LONGEST);
    loop {
        while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = unread.drain(..=end).collect();
            let Some(answer) = leaves.answer(&String::from_utf8_lossy(&line), clock::monotonic()) else { return };
            match timeout(PATIENCE, stream.write_all(answer.as_bytes())).await {
                Ok(Ok(())) => {}
                _ => return,
            }
        }
        if unread.len() > LONGEST {
            return;
        }
        match timeout(SILENCE, stream.read_buf(&mut unread)).await {
            Ok(Ok(1..)) => {}
            _ => return,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use pod_guard::words::{Question, nonce};
    use protocol::ids::{AttemptNumber, Uid};

    use super::*;

    fn attempt(number: u32) -> AttemptId {
        AttemptId { workload: Uid(7), number: AttemptNumber(number) }
    }

    fn key() -> Key {
        Key::read(&Key::new_text().unwrap()).unwrap()
    }

    fn asks(attempt: AttemptId) -> Question {
        Question { attempt: attempt.to_string(), nonce: nonce().unwrap(), asked: 5 }
    }

    const NOW: MonotonicMs = MonotonicMs(1_000);

    #[test]
    fn a_guard_may_go_on_for_what_is_left_and_no_longer() {
        let (leaves, key, question) = (Leaves::default(), key(), asks(attempt(1)));
        // The word comes before the attempt has a record.
        leaves.let_go_on(attempt(1), MonotonicMs(61_000));
        assert_eq!(leaves.answer(&question.line(&key), NOW), None, "nobody knows its key yet");
        leaves.hold(attempt(1), key.clone());
        let answer = leaves.answer(&question.line(&key), NOW).unwrap();
        assert_eq!(question.answered(&key, &answer), Some(60_000));
        assert_eq!((leaves.begun(attempt(1)), leaves.begun(attempt(2))), (Some(1), None));
        leaves.let_go_on(attempt(1), MonotonicMs(40_000));
        let later = leaves.answer(&question.line(&key), MonotonicMs(60_999)).unwrap();
        assert_eq!(question.answered(&key, &later), Some(1), "an older word takes nothing back");
        assert_eq!(leaves.answer(&question.line(&key), MonotonicMs(61_000)), None);
        assert_eq!(leaves.begun(attempt(1)), Some(1), "one guard, however often it asks");
    }

    #[test]
    fn who_is_not_the_attempts_guard_hears_nothing() {
        let (leaves, ours) = (Leaves::default(), key());
        leaves.hold(attempt(1), ours.clone());
        assert_eq!(leaves.answer(&asks(attempt(1)).line(&ours), NOW), None, "nobody let it");
        assert_eq!(leaves.begun(attempt(1)), Some(0));
        leaves.let_go_on(attempt(1), MonotonicMs(61_000));
        assert_eq!(leaves.answer(&asks(attempt(1)).line(&key()), NOW), None);
        assert_eq!(leaves.answer(&asks(attempt(2)).line(&ours), NOW), None);
        assert_eq!(leaves.answer("GET / HTTP/1.1", NOW), None);
        leaves.forget(attempt(1));
        assert_eq!(leaves.answer(&asks(attempt(1)).line(&ours), NOW), None);
    }

    #[tokio::test]
    async fn guards_ask_over_tcp_again_and_again() {
        let (leaves, key) = (Arc::new(Leaves::default()), key());
        leaves.hold(attempt(1), key.clone());
        leaves.let_go_on(attempt(1), clock::monotonic().plus(60_000));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(serve(listener, leaves.clone(), tasks.clone(), stop.clone()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        for _ in 0..3 {
            let question = asks(attempt(1));
            stream.write_all(question.line(&key).as_bytes()).await.unwrap();
            let mut answer = vec![];
            while !answer.ends_with(b"\n") {
                assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
            }
            let ttl = question.answered(&key, &String::from_utf8(answer).unwrap()).unwrap();
            assert!((50_000..=60_000).contains(&ttl), "{ttl}");
        }
        // One that talks without end is let go.
        stream.write_all(&[b'x'; 4 * LONGEST]).await.unwrap();
        assert_eq!(stream.read_buf(&mut vec![]).await.unwrap_or(0), 0);
        stop.cancel();
        tasks.close();
        tasks.wait().await;
    }
}
