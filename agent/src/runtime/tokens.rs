//! The tokens of one attempt: asked of the coordinators before anything of it starts, and again before each expires. Where a token's text goes
//! is the runtime's to say; it is kept nowhere else.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::control::LaunchOrder;
use protocol::ids::{AttemptId, AttemptNumber, MonotonicMs, Uid};
use protocol::token::{TokenRequest, TokenText};
use tokio::sync::{mpsc, oneshot};

use crate::clock;

/// A token is refreshed once this much of its life is over, in thousandths, less the jitter.
const REFRESHED_AT: u64 = 800;
/// By at most how much sooner, so that attempts that began together do not ask together.
const MOST_JITTER: u64 = 100;
/// The first and the longest wait after a try that came to nothing.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// The longest sleep: the clock that counts also counts the time that the machine is suspended.
const NAP: Duration = Duration::from_secs(10);
/// Questions that may wait to be sent.
const QUEUE: usize = 1024;

/// A token, and how long it is valid from when it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Its text.
    pub text: TokenText,
    /// Its life.
    pub life: Duration,
}

/// One question, and where its answer goes: a token, or why there is none now.
#[derive(Debug)]
pub struct TokenAsk {
    /// Which token.
    pub request: TokenRequest,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<Issued, String>>,
}

/// The way to whoever asks the coordinators.
#[derive(Debug, Clone)]
pub struct TokenSource(mpsc::Sender<TokenAsk>);

impl TokenSource {
    /// The runtime's end, and that of whoever answers.
    pub fn new() -> (Self, mpsc::Receiver<TokenAsk>) {
        let (asks, asked) = mpsc::channel(QUEUE);
        (Self(asks), asked)
    }

    async fn ask(&self, request: TokenRequest) -> Result<Issued, String> {
        let gone = || "this agent is shutting down".to_owned();
        let (answer, answered) = oneshot::channel();
        self.0.send(TokenAsk { request, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

/// Where an attempt's tokens lie.
pub(super) trait Shelf: Sync {
    /// Puts a token in the place of the one before it. The error says why it is not there, in one sentence, without its text.
    fn put(&self, index: usize, text: &TokenText) -> impl Future<Output = Result<(), String>> + Send;
}

/// When a token of this life is asked for again, from when it was asked for. `jitter` is any number.
fn refreshed_after(life: Duration, jitter: u64) -> Duration {
    let thousandths = REFRESHED_AT - jitter % (MOST_JITTER + 1);
    life.mul_f64(thousandths as f64 / 1000.0)
}

/// The tokens of one attempt, and when each is due.
pub(super) struct Tokens {
    /// None: nobody can be asked.
    source: Option<TokenSource>,
    attempt: AttemptId,
    audiences: Vec<String>,
    due: BTreeMap<usize, Due>,
    jitter: fn() -> u64,
}

/// When a token is asked for next.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: MonotonicMs,
    /// How long to wait if that comes to nothing.
    wait: Duration,
    /// Whether a try came to nothing since it was last there, and that was told.
    missed: bool,
}

impl Tokens {
    /// Those of an order, all due now. `jitter` gives another number each time.
    pub(super) fn of(order: &LaunchOrder, source: Option<TokenSource>, jitter: fn() -> u64) -> Self {
        let audiences: Vec<String> = order.spec.tokens.iter().map(|token| token.audience.clone()).collect();
        let now = Due { at: MonotonicMs(0), wait: RETRY.0, missed: false };
        let due = (0..audiences.len()).map(|index| (index, now)).collect();
        Self { source, attempt: order.attempt, audiences, due, jitter }
    }

    /// Of an attempt of which no more is known.
    pub(super) fn none() -> Self {
        let attempt = AttemptId { workload: Uid(0), number: AttemptNumber(0) };
        Self { source: None, attempt, audiences: vec![], due: BTreeMap::new(), jitter: random }
    }

    /// Asks for one. The error says why there is none, and for whom.
    async fn ask(&self, index: usize) -> Result<Issued, String> {
        let audience = &self.audiences[index];
        let request = TokenRequest { attempt: self.attempt, audience: audience.clone() };
        let answer = match &self.source {
            Some(source) => source.ask(request).await,
            None => Err("this agent has no way to ask for it".to_owned()),
        };
        answer.map_err(|why| format!("a token for {audience}: {why}"))
    }

    /// One try of a token that is due. The error says why it is not there.
    async fn try_one(&mut self, index: usize, shelf: &impl Shelf) -> Result<(), String> {
        let asked = clock::monotonic();
        let fresh = async {
            let Issued { text, life } = self.ask(index).await?;
            let put = shelf.put(index, &text).await;
            put.map(|()| life).map_err(|why| format!("the token for {}: {why}", self.audiences[index]))
        };
        let outcome = fresh.await;
        self.note(index, asked, outcome.as_ref().ok().copied());
        outcome.map(drop)
    }

    /// When it is due next, after one was asked for then and came with this life, or did not come.
    fn note(&mut self, index: usize, asked: MonotonicMs, life: Option<Duration>) {
        let after = life.map(|life| refreshed_after(life, (self.jitter)()));
        let Some(due) = self.due.get_mut(&index) else { return };
        match after {
            Some(after) => *due = Due { at: asked.plus(millis(after)), wait: RETRY.0, missed: false },
            None => {
                due.at = clock::monotonic().plus(millis(due.wait));
                due.wait = (due.wait * 2).min(RETRY.1);
            }
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.audiences.len()
    }

    /// One of them for the first time, however long that takes. `waits` is told what is missing, each time that a try came to nothing.
    pub(super) async fn first<F: Future<Output = ()>>(
        &mut self,
        index: usize,
        waits: impl Fn(String) -> F,
    ) -> TokenText {
        loop {
            let asked = clock::monotonic();
            let outcome = self.ask(index).await;
            self.note(index, asked, outcome.as_ref().ok().map(|issued| issued.life));
            match outcome {
                Ok(issued) => return issued.text,
                Err(why) => waits(why).await,
            }
            sleep_until(self.due[&index].at).await;
        }
    }

    /// Puts each of them in its place for the first time; as [`Self::first`].
    pub(super) async fn fill<F: Future<Output = ()>>(&mut self, shelf: &impl Shelf, waits: impl Fn(String) -> F) {
        for index in 0..self.count() {
            while let Err(why) = self.try_one(index, shelf).await {
                waits(why).await;
                sleep_until(self.due[&index].at).await;
            }
        }
    }

    /// Keeps them fresh, for ever. While there is no new one the old one stays.
    pub(super) async fn refresh(&mut self, shelf: &impl Shelf) -> std::convert::Infallible {
        loop {
            let Some((index, due)) = self.due.iter().min_by_key(|(_, due)| due.at).map(|(i, due)| (*i, *due)) else {
                return std::future::pending().await;
            };
            sleep_until(due.at).await;
            let outcome = self.try_one(index, shelf).await;
            let (attempt, audience) = (self.attempt, &self.audiences[index]);
            let Some(due) = self.due.get_mut(&index) else { continue };
            match outcome {
                Ok(()) => tracing::debug!(%attempt, audience, "a workload token is fresh"),
                Err(why) if !due.missed => {
                    due.missed = true;
                    tracing::warn!(%attempt, why, "a workload token is not refreshed yet");
                }
                Err(why) => tracing::debug!(%attempt, why, "a workload token is not refreshed yet"),
            }
        }
    }
}

async fn sleep_until(at: MonotonicMs) {
    loop {
        let left = Duration::from_millis(at.since(clock::monotonic()));
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(NAP)).await;
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Jitter of this process's own.
pub(super) fn random() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1 & 0xffff
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Mutex;
    use std::time::Instant;

    use serde_json::json;

    use super::*;

    fn order(audiences: &[&str]) -> LaunchOrder {
        let tokens: Vec<_> =
            audiences.iter().map(|a| json!({"audience": a, "mountPath": format!("/run/{a}")})).collect();
        let attempt = json!({"workload": "00000000-0000-0000-0000-00000000000a", "number": 1});
        let key = json!({"namespace": "a", "name": "b"});
        let order = json!({"attempt": attempt, "key": key, "spec": {"tokens": tokens}, "placement": []});
        serde_json::from_value(order).unwrap()
    }

    /// What was put, in order, with the place of each; refuses while told to.
    #[derive(Default)]
    struct Noted {
        put: Mutex<Vec<(usize, String)>>,
        refuses: Mutex<bool>,
    }

    impl Shelf for Noted {
        async fn put(&self, index: usize, text: &TokenText) -> Result<(), String> {
            if *self.refuses.lock().unwrap() {
                return Err("the disk is full".into());
            }
            self.put.lock().unwrap().push((index, text.reveal().to_owned()));
            Ok(())
        }
    }

    impl Noted {
        fn all(&self) -> Vec<(usize, String)> {
            self.put.lock().unwrap().clone()
        }
    }

    /// Answers each question with the next of these, and then with nothing but the last; counts them.
    fn coordinators(answers: Vec<Result<u64, &'static str>>) -> TokenSource {
        let (source, mut asked) = TokenSource::new();
        tokio::spawn(async move {
            let mut number = 0;
            while let Some(TokenAsk { request, answer }) = asked.recv().await {
                let next = answers[number.min(answers.len() - 1)];
                number += 1;
                let text = format!("{} {number}", request.audience);
                let issued = |life| Issued { text: TokenText::new(text), life: Duration::from_millis(life) };
                let _ = answer.send(next.map(issued).map_err(str::to_owned));
            }
        });
        source
    }

    #[test]
    fn a_token_is_refreshed_between_seven_and_eight_tenths_of_its_life() {
        let after = |jitter| refreshed_after(Duration::from_secs(3600), jitter).as_secs();
        assert_eq!([0, 50, 100, 101].map(after), [2880, 2700, 2520, 2880]);
        assert!((0..1000).all(|jitter| (2520..=2880).contains(&after(jitter))));
    }

    #[tokio::test]
    async fn each_is_there_before_the_start_and_what_is_missing_is_told() {
        let source = coordinators(vec![Err("no coordinator is connected"), Ok(60_000)]);
        let (noted, told) = (Noted::default(), Mutex::new(vec![]));
        let mut tokens = Tokens::of(&order(&["sts", "vault"]), Some(source), || 0);
        tokens.fill(&noted, |why| async { told.lock().unwrap().push(why) }).await;
        assert_eq!(noted.all(), [(0, "sts 2".to_owned()), (1, "vault 3".to_owned())]);
        assert_eq!(*told.lock().unwrap(), ["a token for sts: no coordinator is connected"]);
    }

    #[tokio::test]
    async fn each_is_refreshed_before_it_expires_and_stays_while_there_is_no_new_one() {
        let source = coordinators(vec![Ok(400), Ok(60_000), Err("no quorum"), Err("no quorum"), Ok(60_000)]);
        let noted = Noted::default();
        let mut tokens = Tokens::of(&order(&["sts", "vault"]), Some(source), || 0);
        let began = Instant::now();
        tokens.fill(&noted, |_| std::future::ready(())).await;
        assert_eq!(noted.all().len(), 2);
        let refreshed = tokio::time::timeout(Duration::from_secs(5), tokens.refresh(&noted));
        refreshed.await.unwrap_err();
        // The first alone: after 320 ms, and then 200 and 400 ms later.
        assert_eq!(noted.all(), [(0, "sts 1".to_owned()), (1, "vault 2".to_owned()), (0, "sts 5".to_owned())]);
        assert!(began.elapsed() >= Duration::from_secs(5));
    }

    #[tokio::test]
    async fn one_that_can_not_be_put_is_asked_for_again() {
        let (noted, told) = (Noted::default(), Mutex::new(vec![]));
        *noted.refuses.lock().unwrap() = true;
        let mut tokens = Tokens::of(&order(&["sts"]), Some(coordinators(vec![Ok(60_000)])), || 0);
        let waits = |why| {
            told.lock().unwrap().push(why);
            *noted.refuses.lock().unwrap() = false;
            std::future::ready(())
        };
        tokens.fill(&noted, waits).await;
        assert_eq!(*told.lock().unwrap(), ["the token for sts: the disk is full"]);
        assert_eq!(noted.all(), [(0, "sts 2".to_owned())]);
    }

    #[tokio::test]
    async fn without_tokens_nothing_is_asked() {
        let noted = Noted::default();
        let mut tokens = Tokens::of(&order(&[]), None, || 0);
        tokens.fill(&noted, |why| async move { panic!("{why}") }).await;
        let never = tokio::time::timeout(Duration::from_millis(50), tokens.refresh(&noted));
        never.await.unwrap_err();
    }
}
