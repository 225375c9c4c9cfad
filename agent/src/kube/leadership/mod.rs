//! Which of an agent's replicas acts: the one that has the cluster's Lease (coordination.k8s.io/v1) in the agent's own namespace. The others
//! wait, and take over.
//!
//! [`election`] decides, purely; here are the clock, the requests and the words for people. Whoever leads may change something only while its
//! [`Gate`] is open, which shuts by itself at the deadline. A replica that loses the Lease ends its process at once: nothing that it
//! knew or had begun outlives it there. One that is stopped shuts the gate and then lets the Lease go.

mod election;
mod gate;
mod lease;
mod settings;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use protocol::ids::{Epoch, Incarnation, MonotonicMs};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::client::with_causes;
use election::{Answer, Ask, Election, Next};
pub use gate::Gate;
pub(crate) use gate::{Guarded, Shut};
use lease::{Hand, Seen};
pub use settings::{LeaseSettings, LeaseTimes};

/// The exit code of an agent that lost its Lease.
pub const LEASE_LOST: i32 = 5;
/// No request about the Lease takes longer: there is time for another within the deadline.
const REQUEST_MS: u64 = 4_000;
/// How long a replica that is stopped tries to let the Lease go.
const RELEASE: Duration = Duration::from_secs(3);

/// What a leadership begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reign {
    /// Which life of the cluster's records this is. All replicas that ever had this Lease share it.
    pub life: Incarnation,
    /// The leadership's number among those of this Lease, from 0.
    pub number: u32,
    /// The highest epoch that any earlier leader saw.
    pub epoch: Epoch,
}

/// Why a replica cannot take part.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LeaseError {
    /// The API server won't let it.
    #[error(
        "Lease {place}: {cause}; the agent's account needs the verbs get, create and update on leases of coordination.k8s.io there"
    )]
    Refused {
        /// Namespace and name.
        place: String,
        /// What the API server said.
        cause: String,
    },
    /// The agent's own namespace is not there.
    #[error(
        "the agent's own namespace {namespace} is not there and can't be made: {cause}; make it: kubectl create namespace {namespace}"
    )]
    Namespace {
        /// The namespace.
        namespace: String,
        /// Why not.
        cause: String,
    },
    /// The times make no sense.
    #[error("the Lease's times: {0}")]
    Times(String),
}

#[derive(Debug, Clone)]
enum State {
    Waiting,
    Leads(Reign),
    Refused(LeaseError),
}

/// A replica in the election, from its candidacy to its end.
pub struct Leadership {
    state: watch::Receiver<State>,
    epochs: Epochs,
    gate: Arc<Gate>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

/// The way to make an epoch known to later leaders.
#[derive(Debug, Clone)]
pub struct Epochs {
    wanted: Arc<watch::Sender<Epoch>>,
    written: watch::Receiver<Epoch>,
    gate: Arc<Gate>,
}

impl Epochs {
    /// Whether this epoch, or a higher one, stands in the Lease.
    pub fn has(&self, epoch: Epoch) -> bool {
        *self.written.borrow() >= epoch
    }

    /// Returns once this epoch stands in the Lease. Where that can't be done the process ends meanwhile.
    pub async fn write(&mut self, epoch: Epoch) {
        self.wanted.send_if_modified(|wanted| std::mem::replace(wanted, epoch.max(*wanted)) < epoch);
        if self.written.wait_for(|written| *written >= epoch).await.is_err() {
            std::future::pending().await
        }
    }

    /// Whether this replica may act at this moment.
    pub fn may_act(&self) -> bool {
        self.gate.is_open()
    }
}

impl Leadership {
    /// Makes this replica a candidate. `client` is for the Lease alone: what it changes needs no leadership.
    pub fn stand(client: Client, settings: LeaseSettings) -> Result<Self, LeaseError> {
        settings.times.check().map_err(LeaseError::Times)?;
        let (gate, stop) = (Arc::new(Gate::new()), CancellationToken::new());
        let (tell, state) = watch::channel(State::Waiting);
        let ((wanted, wants), (wrote, written)) = (watch::channel(Epoch(0)), watch::channel(Epoch(0)));
        let me = name();
        let election = Election::new(me.clone(), settings.times, gate.now());
        let (gate_of_task, stopped) = (gate.clone(), stop.clone());
        let replica = Replica {
            client,
            settings,
            me,
            election,
            gate: gate_of_task,
            tell,
            wants,
            wrote,
            stop: stopped,
            said: String::new(),
            trouble: String::new(),
        };
        let task = tokio::spawn(replica.run());
        let epochs = Epochs { wanted: Arc::new(wanted), written, gate: gate.clone() };
        Ok(Self { state, epochs, gate, stop, task })
    }

    /// Opens while this replica may act.
    pub fn gate(&self) -> Arc<Gate> {
        self.gate.clone()
    }

    /// The way to make an epoch known to later leaders.
    pub fn epochs(&self) -> Epochs {
        self.epochs.clone()
    }

    /// Returns once this replica leads. May be dropped and called again.
    pub async fn leads(&mut self) -> Result<Reign, LeaseError> {
        let state = self.state.wait_for(|state| !matches!(state, State::Waiting)).await.map(|state| state.clone());
        match state {
            Ok(State::Leads(reign)) => Ok(reign),
            Ok(State::Refused(error)) => Err(error),
            // Its task goes on until it is told to stop, or the process ends.
            Ok(State::Waiting) | Err(_) => std::future::pending().await,
        }
    }

    /// Changes nothing more, and lets the Lease go: another replica takes it at once.
    pub async fn release(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

/// No other replica has this name, nor had it: one that was started anew waits as any other does.
fn name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut id = uuid::Uuid::new_v4().simple().to_string();
    id.truncate(8);
    format!("{host}_{}_{id}", std::process::id())
}

/// Ends the process, in which another replica's time may have begun: what it has in hand may not be done any more. One line says why.
pub(crate) fn end(why: &str) -> ! {
    static SAID: std::sync::Once = std::sync::Once::new();
    SAID.call_once(|| {
        // Not `eprintln!`, which panics where nobody reads it.
        let _ = writeln!(std::io::stderr(), "this replica of the agent ends, and is to be started again: {why}");
        std::process::exit(LEASE_LOST)
    });
    std::process::exit(LEASE_LOST)
}

/// The task behind a [`Leadership`].
struct Replica {
    client: Client,
    settings: LeaseSettings,
    me: String,
    election: Election,
    gate: Arc<Gate>,
    tell: watch::Sender<State>,
    wants: watch::Receiver<Epoch>,
    wrote: watch::Sender<Epoch>,
    stop: CancellationToken,
    /// What a person was told last: who leads, and what keeps the API server from answering.
    said: String,
    trouble: String,
}

impl Replica {
    async fn run(mut self) {
        let stop = self.stop.clone();
        tokio::select! {
            error = self.take_part() => drop(self.tell.send_replace(State::Refused(error))),
            () = stop.cancelled() => {}
        }
        self.gate.shut();
        // Also by one that never led: it may have asked for it a moment ago.
        let now = self.gate.now();
        if self.election.may_release(now) && tokio::time::timeout(RELEASE, self.let_go()).await.is_err() {
            tracing::warn!(lease = self.settings.name, "it is not let go: others take it once it has run out");
        }
    }

    async fn take_part(&mut self) -> LeaseError {
        loop {
            let now = self.gate.now();
            match self.election.next(now) {
                Next::Lost(lost) => {
                    self.gate.shut();
                    end(&format!("Lease {} is lost: {lost}", self.place()));
                }
                Next::Wait(until) => {
                    let pause = tokio::time::sleep(Duration::from_millis(until.since(now)));
                    tokio::select! {
                        () = pause => {}
                        Ok(()) = self.wants.changed() => self.election.hurry(self.gate.now()),
                    }
                }
                Next::Ask(ask) => match self.ask(&ask, now).await {
                    Ok(answer) => self.election.answered(&ask, now, answer, self.gate.now()),
                    Err(error) => return error,
                },
            }
            self.follow_up();
        }
    }

    fn place(&self) -> String {
        format!("{}/{}", self.settings.namespace, self.settings.name)
    }

    /// Opens the gate, and says what changed, for the program and for people.
    fn follow_up(&mut self) {
        let now = self.gate.now();
        let Some(lease) = self.election.lease() else { return };
        let words = match (self.election.holds(), self.election.acts(now)) {
            (_, Some(until)) => {
                self.gate.open_until(until);
                self.wrote.send_if_modified(|wrote| std::mem::replace(wrote, lease.epoch()) != lease.epoch());
                if matches!(*self.tell.borrow(), State::Waiting)
                    && let Some(life) = lease.life()
                {
                    let reign = Reign { life, number: lease.transitions(), epoch: lease.epoch() };
                    self.tell.send_replace(State::Leads(reign));
                }
                format!("leading: {} leads since {}", self.me, lease.since())
            }
            (Some((from, _)), None) if now < from => format!(
                "{} made the Lease anew and waits {} s: a leader whose Lease was deleted has stopped by then",
                self.me,
                self.settings.times.duration.as_secs_f64()
            ),
            // Its time is over, which the next turn finds.
            (Some(_), None) => return,
            (None, None) => {
                let holder = lease.holder.as_deref().unwrap_or("nobody");
                format!("waiting: {holder} leads since {}", lease.since())
            }
        };
        if words != self.said {
            self.said = words;
            tracing::info!(lease = %self.place(), "{}", self.said);
        }
    }

    /// Tells a person what keeps the API server from answering, once.
    fn complain(&mut self, trouble: String) -> Answer {
        if trouble != self.trouble {
            self.trouble = trouble;
            tracing::warn!(lease = %self.place(), "{}", self.trouble);
        }
        Answer::Failed
    }

    async fn ask(&mut self, ask: &Ask, now: MonotonicMs) -> Result<Answer, LeaseError> {
        let left = self.election.holds().map_or(REQUEST_MS, |(_, until)| until.since(now).min(REQUEST_MS));
        let within = Duration::from_millis(left.max(1));
        let answer = match tokio::time::timeout(within, self.request(ask)).await {
            Ok(answer) => answer,
            Err(_) => return Ok(self.complain("the API server does not answer in time".to_owned())),
        };
        if answer.is_ok() {
            self.trouble.clear();
        }
        match answer {
            Ok(Some(lease)) => Ok(Seen::of(lease).map_or(Answer::Failed, Answer::Is)),
            Ok(None) => Ok(Answer::Absent),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Answer::Conflict),
            Err(kube::Error::Api(status)) if status.code == 404 && matches!(ask, Ask::Take(None)) => {
                self.make_namespace().await.map(|()| Answer::Failed)
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Answer::Absent),
            // One that leads goes on to its deadline.
            Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403) && self.election.holds().is_none() => {
                Err(LeaseError::Refused { place: self.place(), cause: status.message.clone() })
            }
            Err(error) => Ok(self.complain(format!("it can't be asked for: {}", with_causes(&error)))),
        }
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.settings.namespace)
    }

    fn hand(&self) -> Hand<'_> {
        let LeaseSettings { namespace, name, times, .. } = &self.settings;
        Hand { namespace, name, me: &self.me, times, epoch: *self.wants.borrow(), now: Timestamp::now() }
    }

    async fn request(&self, ask: &Ask) -> kube::Result<Option<Lease>> {
        let (leases, name, parameters) = (self.leases(), &*self.settings.name, PostParams::default());
        match ask {
            Ask::Look => leases.get_opt(name).await,
            Ask::Take(None) => leases.create(&parameters, &self.hand().take(None)).await.map(Some),
            Ask::Take(Some(over)) => leases.replace(name, &parameters, &self.hand().take(Some(over))).await.map(Some),
            Ask::Renew(over) => leases.replace(name, &parameters, &self.hand().renew(over)).await.map(Some),
        }
    }

    /// Makes the agent's own namespace, where there is none.
    async fn make_namespace(&self) -> Result<(), LeaseError> {
        let namespace = &self.settings.namespace;
        let refused = |cause| LeaseError::Namespace { namespace: namespace.clone(), cause };
        if !self.settings.make_namespace {
            return Err(refused("this agent makes none (--keep-namespaces)".to_owned()));
        }
        let mut object = Namespace::default();
        object.metadata.name = Some(namespace.clone());
        match Api::all(self.client.clone()).create(&PostParams::default(), &object).await {
            Ok(_) => tracing::info!(namespace, "made, for the agent's own records"),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
                return Err(refused(status.message.clone()));
            }
            Err(error) => tracing::warn!(namespace, error = with_causes(&error), "it can't be made yet"),
        }
        Ok(())
    }

    /// Takes its own name out of the Lease. Nobody acts by it any more.
    async fn let_go(&self) {
        loop {
            if let Ok(lease) = self.leases().get_opt(&self.settings.name).await {
                let mine = |seen: &Seen| seen.holder.as_ref() == Some(&self.me);
                let Some(seen) = lease.and_then(Seen::of).filter(mine) else { return };
                let released = self.hand().release(&seen);
                if self.leases().replace(&self.settings.name, &PostParams::default(), &released).await.is_ok() {
                    tracing::info!(lease = %self.place(), "{} has let it go", self.me);
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
