//! One world: 3 coordinator replicas, 3 clusters with an agent each, clients, a network and disks, all in virtual time, one
//! event after the other on one thread.

use std::collections::BTreeSet;

use agent::cluster::{AgentConfig, DeclaredNode};
use coordinator::raft::SimDisk;
use engine::lifecycle::Phase;
use engine::state::State;
use protocol::control::ClusterInfo;
use protocol::ids::{ClusterName, Incarnation, NodeName, Region};
use protocol::sku::Sku;
use protocol::workload::Framework;

use super::agents::AgentProcess;
use super::clients::Clients;
use super::clock::{Clock, MS, SECOND};
use super::facts::{Fact, Short};
use super::faults::{Fault, Schedule};
use super::invariants::{Layout, NodeLayout};
use super::judge::Judge;
use super::links::Links;
use super::mishaps::JUMP_US;
use super::network::Network;
use super::process::{AGENTS, Machine, Process, REPLICAS};
use super::queue::{Event, Queue};
use super::random::{Dice, Random};
use super::replicas::{HeldBinding, ReplicaInbox, ReplicaPace, ReplicaProcess};
use super::runtime::Runtime;

/// How long everything may take once faults are over, beside what a date that jumped forward adds to the waits of retries.
const REST_US: u64 = 300 * SECOND;
/// How often is looked whether everything is done.
const LOOK_US: u64 = 500 * MS;

/// A world.
pub(crate) struct World {
    pub seed: u64,
    /// Every fault that the seed has, by its number, also those that were left out.
    pub faults: Vec<(u64, Fault)>,
    pub now_us: u64,
    pub queue: Queue,
    pub dice: Dice,
    pub net: Network,
    pub links: Links,
    pub replicas: Vec<ReplicaProcess>,
    pub agents: Vec<AgentProcess>,
    pub runtimes: Vec<Runtime>,
    pub clients: Clients,
    pub schedule: Schedule,
    pub judge: Judge,
    pub held_binding: Option<HeldBinding>,
    pub calm: bool,
    /// Faults that struck.
    pub struck: u64,
    pub events: u64,
    done: bool,
}

fn clock(random: &mut Random) -> Clock {
    Clock {
        started_us: 0,
        fast_ppm: random.between(0, 2_000) as i64 - 1_000,
        ahead_ms: random.between(0, 1_000) as i64 - 500,
    }
}

fn config(place: usize, random: &mut Random) -> AgentConfig {
    let cluster = ClusterInfo {
        name: ClusterName::new(format!("cluster-{}", place + 1)).expect("it is a name"),
        region: Region::new(["north", "south"][place % 2]).expect("it is a name"),
        frameworks: vec![Framework::Batch, Framework::Ray],
        fences: true,
        secrets: true,
        manifests: vec![],
        prices: vec![],
    };
    let nodes = (1..=random.between(2, 3)).map(|n| DeclaredNode {
        name: NodeName::new(format!("node-{n}")).expect("it is a name"),
        sku: Some(Sku::parse("H100").expect("it is a model")),
        devices: 4,
        cpu_milli: 24_000,
        memory_mib: 32 * 1024,
    });
    AgentConfig::new(cluster, nodes.collect())
}

fn layout(configs: &[AgentConfig]) -> Layout {
    let node = |n: &DeclaredNode| NodeLayout {
        name: n.name.clone(),
        sku: n.sku.clone().expect("every node here has a model"),
        devices: n.devices,
        cpu_milli: n.cpu_milli,
        memory_mib: n.memory_mib,
    };
    configs.iter().map(|c| (c.cluster.name.clone(), c.nodes.iter().map(node).collect())).collect()
}

impl World {
    /// The world of a seed, at its beginning, without the faults of these numbers.
    pub fn new(seed: u64, trace: bool, without: &BTreeSet<usize>) -> Self {
        let mut dice = Dice::new(seed);
        let setup = &mut dice.setup;
        let configs: Vec<AgentConfig> = (0..AGENTS).map(|place| config(place, setup)).collect();
        let pace = ReplicaPace {
            snapshot_every: setup.between(10, 80),
            keep_entries: setup.between(1, 30),
            reclaim_after_ms: setup.between(200, 4_000),
        };
        let election_seed = setup.number();
        let replicas = (0..REPLICAS).map(|place| {
            let machine = Machine::new(SimDisk::new(), clock(setup));
            ReplicaProcess::new(place, machine, election_seed, &pace)
        });
        let replicas = replicas.collect();
        let judge = Judge::new(&layout(&configs), trace);
        let agents = configs.into_iter().enumerate().map(|(place, config)| AgentProcess {
            machine: Machine::new(SimDisk::new(), clock(setup)),
            core: None,
            config,
            incarnation: Incarnation(place as u128 + 1),
            inbox: Default::default(),
        });
        let agents = agents.collect();
        let schedule = Schedule::new(&mut dice.faults);
        let (clients, acts) = Clients::new(&mut dice.clients, schedule);
        let mut queue = Queue::default();
        for (at, event) in acts {
            queue.add(at, event);
        }
        let faults = schedule.faults(&mut dice.faults);
        for (number, (at, fault)) in faults.iter().enumerate().filter(|(number, _)| !without.contains(number)) {
            queue.add(*at, Event::Fault(number, *fault));
        }
        queue.add(schedule.calm_us, Event::Calm);
        queue.add(0, Event::TendLinks);
        queue.add(0, Event::Operator);
        Self {
            seed,
            faults,
            now_us: 0,
            queue,
            dice,
            net: Network::new(),
            links: Links::default(),
            replicas,
            agents,
            runtimes: (0..AGENTS).map(|_| Runtime::default()).collect(),
            clients,
            schedule,
            judge,
            held_binding: None,
            calm: false,
            struck: 0,
            events: 0,
            done: false,
        }
    }

    /// Runs it to its end: everything done, or an invariant broken.
    pub fn run(&mut self) {
        for process in Process::all() {
            self.start(process);
        }
        while !self.done && self.judge.violation.is_none() {
            let Some((at_us, event)) = self.queue.next() else { break };
            self.now_us = at_us;
            self.events += 1;
            self.judge.digest.number(at_us);
            self.dispatch(event);
        }
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Tick { process, life } => self.tick(process, life),
            Event::Flush { replica, life } => self.flush(replica, life),
            Event::Peer { from, to, frame } => {
                let from = self.replicas[from].id;
                self.replica_takes(to, ReplicaInbox::Input(coordinator::replica::Input::Peer(from, frame)));
            }
            Event::Own { replica, life, input } => {
                if self.replicas[replica].machine.life == life {
                    self.replica_takes(replica, ReplicaInbox::Input(input));
                }
            }
            Event::Carry { link, up } => self.carry(link, up),
            Event::Opened { link, at_agent } => self.opened(link, at_agent),
            Event::Closed { link, at_agent } => self.closed(link, at_agent),
            Event::TendLinks => self.tend_links(),
            Event::TakeOrder { cluster, life } => self.take_order(cluster, life),
            Event::MemberEnds { cluster, attempt, member } => self.member_ends(cluster, attempt, member),
            Event::Fence { cluster, attempt } => self.fence(cluster, attempt),
            Event::Run { cluster, attempt, state } => self.run_on(cluster, attempt, state),
            Event::Agent { agent, life, input } => {
                if self.agents[agent].machine.life == life {
                    self.agent_takes(agent, input);
                }
            }
            Event::Client { client } => self.client_acts(client),
            Event::Ask { operation, replica } => self.replica_takes(replica, ReplicaInbox::Ask(operation)),
            Event::Hear { operation, answer } => self.client_hears(operation, answer),
            Event::GiveUp { operation, attempt } => self.gives_up(operation, attempt),
            Event::Fault(number, fault) => self.strike(number, fault),
            Event::Trouble { trouble, until_us } => self.trouble(trouble, until_us),
            Event::Heal(number) => self.net.heal(number),
            Event::Resume { process, life } => self.resume(process, life),
            Event::Restart { process } => self.restart(process),
            Event::Operator => self.operator_looks(),
            Event::Calm => self.calm_down(),
            Event::Look => self.look(),
        }
    }

    fn look(&mut self) {
        let Some(left) = self.left() else {
            let states: Vec<&State> = self.replicas.iter().filter_map(|r| r.core.as_ref()).map(|c| c.state()).collect();
            self.judge.hear(self.now_us, &Fact::Done { states });
            self.done = true;
            return;
        };
        if self.now_us > self.schedule.calm_us + REST_US + JUMP_US {
            return self.judge.hear(self.now_us, &Fact::Stuck { left });
        }
        self.queue.add(self.now_us + LOOK_US, Event::Look);
    }

    /// What is not done yet, in words.
    fn left(&self) -> Option<String> {
        self.clients_left().or_else(|| self.runs_left()).or_else(|| self.states_left())
    }

    fn states_left(&self) -> Option<String> {
        let states: Vec<&State> = self.replicas.iter().filter_map(|r| r.core.as_ref()).map(|c| c.state()).collect();
        if states.len() < REPLICAS {
            return Some("not every replica is up".into());
        }
        let ended = |phase| matches!(phase, Phase::Succeeded | Phase::Failed | Phase::Cancelled);
        for (place, state) in states.iter().enumerate() {
            let open: Vec<String> = state
                .workloads
                .values()
                .filter(|w| !ended(w.phase))
                .map(|w| {
                    let attempt = w.attempts.last().map(|a| (a.number, &a.cluster, &a.reported, a.stop.is_some()));
                    format!("{} is {} ({attempt:?}, not before {:?})", Short(w.uid), w.phase, w.not_before)
                })
                .collect();
            if !open.is_empty() {
                return Some(format!("replica {} at {}: {}", place + 1, state.applied, open.join("; ")));
            }
        }
        let indices: Vec<u64> = states.iter().map(|state| state.applied.0).collect();
        (indices.iter().any(|index| *index != indices[0])).then(|| format!("replicas have applied to {indices:?}"))
    }
}
