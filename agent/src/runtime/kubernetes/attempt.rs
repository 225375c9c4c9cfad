//! One attempt's task: make its record, make its objects, follow them, and end what is left.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use pod_guard::words::Key;
use protocol::control::{AttemptState, LaunchOrder};
use protocol::errors::FailureClass;
use protocol::ids::AttemptId;
use protocol::quic::Address;
use protocol::workload::Framework;
use tokio::sync::watch;
use tokio::time::Instant;

use super::calls::{CallError, Meaning};
use super::ending::{self, Ending};
use super::manifests::{Guard, Manifests, PodSecurity, token_secret};
use super::record::{Begun, Kept, Launch, Outcome, Record};
use super::settings::GuardSettings;
use super::tokens::TokenSecrets;
use super::{Handle, Inner, failure, following, frameworks, launching, offers};
use crate::kube::Backoff;
use crate::runtime::tokens::{self, Tokens};

/// Between the polite and the hard end of what is left of an attempt that ended by itself.
const END_GRACE_MS: u64 = 5_000;
/// How long what an API server refuses as it starts, or in a namespace that is new, is asked again.
pub(super) const SOON: Duration = Duration::from_secs(30);

/// How a task finds its attempt.
pub(super) enum Begin {
    /// Ordered for the first time.
    Order(Box<Launch>),
    /// It has a record from before.
    Found(Box<Record>),
    /// Nothing is to be of it: it was stopped before it was known, or nobody owns it.
    Nothing,
}

/// What a task has at hand.
pub(super) struct Task {
    pub inner: Arc<Inner>,
    pub attempt: AttemptId,
    pub handle: Handle,
    /// Whether a create went without an answer, so that what it makes may still come.
    late: AtomicBool,
    /// Whether claims give it devices.
    by_claims: AtomicBool,
    /// The uids of its tokens' Secrets by name, as far as this runtime was told.
    secret_uids: Mutex<BTreeMap<String, String>>,
}

impl Task {
    pub(super) fn new(inner: Arc<Inner>, attempt: AttemptId, handle: Handle) -> Self {
        let (late, by_claims) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { inner, attempt, handle, late, by_claims, secret_uids: Mutex::default() }
    }

    pub(super) fn lock_secret_uids(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.secret_uids.lock().expect("no holder of this lock panics")
    }

    /// From whatever is known to the end.
    pub(super) async fn run(self, begin: Begin) {
        let (place, ending) = match begin {
            Begin::Order(launch) => {
                let place = Place::of(&launch.order);
                (place, self.live(&launch.order, Life::New(&launch)).await)
            }
            Begin::Found(record) => {
                let place = record.order.as_ref().map_or(Place::default(), Place::of);
                let begun = record.as_begun();
                self.note(&begun);
                let ending = match (record.outcome, record.order) {
                    (Some(outcome), _) => Ending { outcome, grace_ms: END_GRACE_MS },
                    (None, Some(order)) => self.live(&order, Life::Found(begun)).await,
                    (None, None) => self.nothing(),
                };
                (place, ending)
            }
            Begin::Nothing => (Place::default(), self.nothing()),
        };
        ending::conclude(&self, place, ending).await;
        self.inner.seen.forget(self.attempt);
        self.inner.leaves.forget(self.attempt);
    }

    fn nothing(&self) -> Ending {
        let grace_ms = self.handle.stop.borrow().unwrap_or(END_GRACE_MS);
        Ending { outcome: Outcome { state: AttemptState::Stopped, late: false }, grace_ms }
    }

    async fn live(&self, order: &LaunchOrder, life: Life<'_>) -> Ending {
        let mut stop = self.handle.stop.subscribe();
        let (state, grace_ms) = tokio::select! {
            // A stop that is already there comes before anything is made.
            biased;
            grace_ms = stopped(&mut stop) => (AttemptState::Stopped, grace_ms),
            state = self.carry_out(order, life) => (state, END_GRACE_MS),
        };
        Ending { outcome: Outcome { state: shortened(state), late: self.late.load(Ordering::Acquire) }, grace_ms }
    }

    /// Up to how it ended.
    async fn carry_out(&self, order: &LaunchOrder, life: Life<'_>) -> AttemptState {
        let mut tokens = Tokens::of(order, self.inner.tokens.get().cloned(), tokens::random);
        let manifests = match self.begin(order, life, &mut tokens).await {
            Ok(manifests) => manifests,
            Err(state) => return state,
        };
        let secrets = TokenSecrets::of(self, &manifests);
        tokio::select! {
            state = following::follow(self, &manifests) => state,
            never = tokens.refresh(&secrets) => match never {},
        }
    }

    /// Up to where all its objects are there. The error is the state in which it ends instead.
    async fn begin(&self, order: &LaunchOrder, life: Life<'_>, tokens: &mut Tokens) -> Result<Manifests, AttemptState> {
        let launch = match life {
            Life::New(launch) => launch,
            Life::Found(begun) => return self.find(order, &begun).await,
        };
        // Counted until everything is made: an agent that is stopped waits for it a little.
        let _under_way = UnderWay::new(&self.inner.launching);
        let spark_by = match order.spec.framework() {
            Ok(Framework::Spark) => frameworks::spark_by(self).await?,
            _ => Default::default(),
        };
        let (gang_devices, guard_key) = (offers::devices(self, order).await?, self.new_key(order)?);
        let begun = Begun { spark_by, gang_devices, guard_key };
        self.note(&begun);
        let guard = self.guard(&begun, true).await?;
        let ground = launching::look_at_namespace(self, order.key.namespace.as_str()).await?;
        let manifests = self.lay_out(order, &begun, guard.as_ref(), ground.security())?;
        match self.take(launch, &begun).await {
            Taken::Mine => {
                self.hold(&begun);
                self.accepted().await;
                launching::launch(self, &manifests, &ground, tokens).await?;
                Ok(manifests)
            }
            Taken::Before(record) => {
                let begun = record.as_begun();
                self.note(&begun);
                if let Some(outcome) = record.outcome {
                    return Err(outcome.state);
                }
                self.accepted().await;
                self.find(order, &begun).await
            }
            Taken::Never(state) => Err(state),
        }
    }

    /// What another runtime made of it.
    async fn find(&self, order: &LaunchOrder, begun: &Begun) -> Result<Manifests, AttemptState> {
        self.hold(begun);
        let guard = self.guard(begun, false).await?;
        // What the namespace demands shapes no name.
        let manifests = self.lay_out(order, begun, guard.as_ref(), PodSecurity::default())?;
        launching::find(self, &manifests).await?;
        Ok(manifests)
    }

    fn lay_out(
        &self,
        order: &LaunchOrder,
        begun: &Begun,
        guard: Option<&Guard>,
        security: PodSecurity,
    ) -> Result<Manifests, AttemptState> {
        let Begun { spark_by, gang_devices, .. } = begun;
        let manifests = Manifests::of(order, &self.inner.settings, *spark_by, gang_devices, guard, security);
        manifests.map_err(|error| failed(FailureClass::User, error.to_string()))
    }

    /// What is to be looked for once it ends.
    fn note(&self, begun: &Begun) {
        if begun.gang_devices.values().any(|devices| devices.claim.is_some()) {
            self.by_claims.store(true, Ordering::Release);
        }
    }

    /// Whether claims give it devices.
    pub(super) fn is_by_claims(&self) -> bool {
        self.by_claims.load(Ordering::Acquire)
    }

    /// What its guards are to prove themselves with, where it is to have any.
    fn new_key(&self, order: &LaunchOrder) -> Result<Option<String>, AttemptState> {
        let key = order.spec.fence().map(|_| Key::new_text()).transpose();
        key.map_err(|cause| failure::infrastructure(format!("its guards have no key: {cause}")))
    }

    /// From here on its guards are answered.
    fn hold(&self, begun: &Begun) {
        if let Some(key) = begun.guard_key.as_deref().and_then(Key::read) {
            self.inner.leaves.hold(self.attempt, key);
        }
    }

    /// What its guards are told. Of what was made before only the names count: that waits for no name service.
    async fn guard(&self, begun: &Begun, is_new: bool) -> Result<Option<Guard>, AttemptState> {
        let (Some(key), Some(GuardSettings { image, address })) = (&begun.guard_key, &self.inner.settings.guards)
        else {
            return Ok(None);
        };
        let address = match is_new {
            true => self.looked_up(address).await?,
            false => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        };
        Ok(Some(Guard { image: image.clone(), address, key: key.clone() }))
    }

    async fn looked_up(&self, address: &Address) -> Result<SocketAddr, AttemptState> {
        let (began, mut backoff) = (Instant::now(), Backoff::new());
        loop {
            let cause = match address.look_up(|_| true).await {
                Ok(found) => return Ok(found),
                Err(cause) => cause,
            };
            let why = format!("where guards find the agent (--guard-address) is not known: {cause}");
            if began.elapsed() > SOON {
                return Err(failure::infrastructure(why));
            }
            self.wait_for(why).await;
            backoff.wait().await;
        }
    }

    /// From here on it has a record: it can be told to others, who will not order it again.
    async fn accepted(&self) {
        self.inner.emit(self.attempt, &self.handle, AttemptState::Accepted).await;
    }

    /// Makes the record. From then on the attempt is this runtime's, and nobody else's, to begin.
    async fn take(&self, launch: &Launch, begun: &Begun) -> Taken {
        let record = Record::of(launch, begun, &self.inner.life);
        let mut backoff = Backoff::new();
        loop {
            let error = match self.inner.records.create(&record).await {
                Ok(()) => return Taken::Mine,
                Err(error) if error.meaning() == Meaning::Taken => match self.inner.records.read(self.attempt).await {
                    // An earlier try of this very loop, which had no answer.
                    Ok(Some(Kept { record, .. })) if record.creator == self.inner.life && record.order.is_some() => {
                        return Taken::Mine;
                    }
                    Ok(Some(Kept { record, .. })) => return Taken::Before(record),
                    Ok(None) => error,
                    Err(error) => error,
                },
                Err(error) => match error.meaning() {
                    // Such as an order that is too large for an object.
                    Meaning::Never(class) => {
                        return Taken::Never(failed(class, format!("it can't be recorded: {error}")));
                    }
                    _ => error,
                },
            };
            self.wait_for(format!("its record in namespace {}: {error}", self.inner.settings.own_namespace)).await;
            backoff.wait().await;
        }
    }

    /// Asks until there is an answer that stays: an error is the state in which the attempt ends for it, or that the name is taken.
    pub(super) async fn insist<T, F>(&self, what: &str, ask: impl Fn() -> F) -> Result<T, Refusal>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let mut backoff = Backoff::new();
        let mut refused_since = None;
        loop {
            let error = match ask().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            match error.meaning() {
                Meaning::Taken => return Err(Refusal::Taken),
                Meaning::Never(class) => return Err(Refusal::Ends(failed(class, format!("{what}: {error}")))),
                Meaning::SoonOrNever(class) => {
                    if refused_since.get_or_insert_with(Instant::now).elapsed() > SOON {
                        return Err(Refusal::Ends(failed(class, format!("{what}: {error}"))));
                    }
                }
                Meaning::Later => {}
            }
            self.wait_for(format!("{what}: {error}")).await;
            backoff.wait().await;
        }
    }

    /// A create, which may be carried out also where no answer to it comes.
    pub(super) async fn creating<T>(&self, create: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
        // Set before it is sent: this may be dropped while it is under way.
        let was_late = self.late.swap(true, Ordering::AcqRel);
        let answer = create.await;
        if !answer.as_ref().is_err_and(CallError::is_open) {
            self.late.store(was_late, Ordering::Release);
        }
        answer
    }

    /// From here on anything may still come that an earlier runtime began to make.
    pub(super) fn may_be_late(&self) {
        self.late.store(true, Ordering::Release);
    }

    /// Tells a state, unless it is the one that was told last.
    pub(super) async fn tell(&self, state: AttemptState) {
        if *self.handle.state.borrow() != state {
            self.inner.emit(self.attempt, &self.handle, state).await;
        }
    }

    /// Tells what the attempt waits for.
    pub(super) async fn wait_for(&self, waiting_for: String) {
        self.tell(shortened(AttemptState::Starting { waiting_for })).await;
    }
}

#[derive(Debug, Clone)]
enum Life<'a> {
    New(&'a Launch),
    Found(Begun),
}

/// A launch that is under way, for as long as it lives.
struct UnderWay<'a>(&'a watch::Sender<usize>);

impl<'a> UnderWay<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

enum Taken {
    Mine,
    Before(Record),
    Never(AttemptState),
}

/// Why something is not made.
pub(super) enum Refusal {
    /// There is an object of this name.
    Taken,
    /// The attempt ends for it.
    Ends(AttemptState),
}

/// Where an attempt's objects are, as far as is known.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    /// Their namespace; none: any.
    pub namespace: Option<String>,
    /// What they are of; none: anything.
    pub framework: Option<Framework>,
    /// The names of the Secrets of its tokens.
    pub secrets: Vec<String>,
}

impl Place {
    pub(super) fn of(order: &LaunchOrder) -> Self {
        let namespace = Some(order.key.namespace.to_string());
        let secrets = (0..order.spec.tokens.len()).map(|index| token_secret(&order.key, order.attempt, index));
        Self { namespace, framework: order.spec.framework().ok(), secrets: secrets.collect() }
    }
}

/// The end of an attempt that came to nothing.
pub(super) fn failed(class: FailureClass, message: String) -> AttemptState {
    match class {
        FailureClass::Infrastructure => failure::infrastructure(message),
        class => AttemptState::Failed { class, message, exit_code: None },
    }
}

/// The longest text of a state, in characters: each is a report, and other programs' words have no end of their own.
const TEXT: usize = 1_000;

fn shortened(mut state: AttemptState) -> AttemptState {
    if let AttemptState::Starting { waiting_for: text } | AttemptState::Failed { message: text, .. } = &mut state
        && let Some((end, _)) = text.char_indices().nth(TEXT)
    {
        text.truncate(end);
        text.push('…');
    }
    state
}

async fn stopped(stop: &mut watch::Receiver<Option<u64>>) -> u64 {
    match stop.wait_for(Option::is_some).await.map(|grace_ms| *grace_ms) {
        Ok(Some(grace_ms)) => grace_ms,
        // The handle is gone, and with it whoever could ask.
        _ => std::future::pending().await,
    }
}
