//! The script language: a command a line, `#` for remarks. What each did is written below it.
//!
//! ```text
//! nodes CLUSTER COUNTxGPUS SKU ...     declares nodes (SKU `-`: none); each GPU brings 8 cpu and 64Gi, a node without has 32 and 128Gi
//!                                      GPUS `8/4`: 8, each given out in 4 parts; `8/1`: whole only
//! ghosts|sick CLUSTER NODE N           takes N devices of a node out
//! stale CLUSTER                        its capacity is too old
//! join CLUSTER [region=R] [life=N] [last=N] [only=FRAMEWORK] [price=SKU:MILLI] [WORKLOAD/ATTEMPT:REVISION:STATE ...]
//! epoch N · at MS · lose CLUSTER · cancel NAME · delete NAME · expire NAME · forget NAME/ATTEMPT REASON ... · fence NAME/ATTEMPT [epoch=N] · why NAME · outstanding CLUSTER · show NAME · warn ...
//! submit NAME [priority=N] [pool=P] [firm] [lasts=MS] [require=R] [prefer=R] [retries=N] [after=NAME,...] [ttl=MS] [beside=NAME] [most=MILLI] [idle=MS] [apart] [reads=DATA,DATA!...] GROUP=COUNTx(GPUSxSKU|SKU|..., MILLImxSKU|... or CPUcpu) ...
//!        COUNT `2..6`: a Ray workload whose group has 2 to 6 members, beside a head of a thousandth of a core
//! cordon C [REASON ...] · drain C [force] [most=N] [REASON ...] · uncordon C · remove C [for-good] [REASON ...]
//! pool NAME [parent=P] [within] [allow=NAMESPACE,...] [RESOURCE=RESERVATION/LIMIT/SHARE[/static] ...]   makes or changes a pool (LIMIT `-`: none)
//! data NAME SIZE [in=CLUSTER,...] [region=R,...] · drop-data NAME   (`reads=DATA!`: it requires that where it is)
//! drop-pool NAME · owner NAME [pool=P] [parent=O] · drop-owner NAME · pools
//! token-key REPLICA [key=N]            the replica signs workload tokens with this key from now on, or with none (`submit … token=AUDIENCE`)
//! busy CLUSTER NODE PERCENT            how busy a node's devices are
//! active CLUSTER NODE SUM              how busy those that attempts hold are, added up (SUM `-`: that of some is not known)
//! forecast NAME · whatif EDIT + EDIT ...   EDIT: cluster C R | nodes C COUNTxGPUS SKU | drain C [waits|NODE] | pool NAME ... | data NAME ... | drop-data NAME | submit NAME ...
//! plan [limit=N]                       plans and commits what it proposes
//! forget                               another leader plans from here on: it remembers nothing
//! propose, commit                      plans without committing; commits that
//! report CLUSTER WORKLOAD/ATTEMPT:REVISION:STATE[:RESIZE[:settled][:GROUP@NODE*MEMBERS missing]]
//! catchup CLUSTER                      its capacity frame includes every command so far
//! frame CLUSTER NUMBER NODE=GPUS ...   its frame includes commands up to this one, and so many GPUs of these nodes are free
//! ```

use std::fmt::Write;

use engine::capacity::NodeCapacity;
use engine::commands::{
    Applied, Binding, Command, Cordoning, DrainEnd, Expect, Fence, Growth, IdleEnd, Outcome, Preemption, Raising,
    Shrink,
};
use engine::token_keys::PublicKey;
use engine::{Effect, State, plan};
use protocol::capacity::Sharing;
use protocol::control::{AttemptReport, AttemptState, GroupPlacement, NodeShare, Order, Resized};
use protocol::data::DataSpec;
use protocol::errors::FailureClass;
use protocol::ids::*;
use protocol::pool::*;
use protocol::resources::{Gpus, Money, Span};
use protocol::workload::{DataNeed, Dependency, Framework, GroupSpec, OnClusterLoss, Spread, WorkloadSpec};

use super::*;

#[derive(Default)]
pub struct World {
    pub state: State,
    pub fleet: Fleet,
    now: u64,
    index: u64,
    proposed: Vec<Binding>,
    preempts: Vec<Preemption>,
    expires: Vec<(WorkloadKey, Uid)>,
    idle: Vec<IdleEnd>,
    growths: Vec<Growth>,
    raises: Vec<Raising>,
    drains: Vec<DrainEnd>,
    pub(super) memory: plan::Memory,
}

/// Runs a script and tells its story.
pub fn run(text: &str) -> String {
    let mut world = World::default();
    let mut story = String::new();
    for line in text.lines().map(str::trim_end) {
        writeln!(story, "{line}").unwrap();
        let words: Vec<&str> = line.split('#').next().unwrap().split_whitespace().collect();
        if let Some((verb, rest)) = words.split_first() {
            world.line(verb, rest).lines().for_each(|l| writeln!(story, "    {l}").unwrap());
        }
    }
    story
}

fn option<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    words.iter().find_map(|w| w.strip_prefix(name)?.strip_prefix('='))
}

fn number<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

pub fn state_of(text: &str) -> AttemptState {
    let failed = |class| AttemptState::Failed { class, message: "it broke".into(), exit_code: None };
    match text {
        "accepted" => AttemptState::Accepted,
        "starting" => AttemptState::Starting { waiting_for: "2 of 4 members".into() },
        "running" => AttemptState::Running,
        "succeeded" => AttemptState::Succeeded,
        "stopped" => AttemptState::Stopped,
        "user" => {
            AttemptState::Failed { class: FailureClass::User, message: "exit status 3".into(), exit_code: Some(3) }
        }
        "infrastructure" => failed(FailureClass::Infrastructure),
        "capacity" => failed(FailureClass::Capacity),
        _ => panic!("{text:?} is no state"),
    }
}

fn word(text: &str) -> AttemptReport {
    let parts: Vec<&str> = text.split([':', '/']).collect();
    let mut told = report(parts[0], number(parts[1]), number(parts[2]), state_of(parts[3]));
    told.resized = parts.get(4).map(|resize| Resized {
        number: CommandNumber(number(resize)),
        settled: parts[5..].contains(&"settled"),
        missing: parts[5..].iter().filter_map(|part| missing(part)).collect(),
    });
    told
}

fn missing(text: &str) -> Option<GroupPlacement> {
    let (group, share) = text.split_once('@')?;
    let (node, members) = share.split_once('*')?;
    let share = NodeShare { node: NodeName::new(node).unwrap(), members: number(members) };
    Some(GroupPlacement {
        group: GroupName::new(group).unwrap(),
        each: Default::default(),
        sku: None,
        nodes: vec![share],
    })
}

/// `GROUP=COUNTxGPUSxSKU|SKU`, `GROUP=COUNTxMILLImxSKU|SKU` for shares of a GPU, or `GROUP=COUNTxCPUcpu`.
fn group_of(text: &str) -> Option<GroupSpec> {
    let (name, shape) = text.split_once('=')?;
    let (count, each) = shape.split_once('x')?;
    let (count, most) = count.split_once("..").unwrap_or((count, count));
    let grows = |group| match number::<u32>(most) - number::<u32>(count) {
        0 => group,
        more => elastic(group, more),
    };
    if let Some(cpu) = each.strip_suffix("cpu") {
        return Some(grows(group(name, number(count), number(cpu), 16, 0, &[])));
    }
    let (gpus, skus) = each.split_once('x').unwrap_or((each, ""));
    let skus: Vec<&str> = skus.split('|').filter(|s| !s.is_empty()).collect();
    if let Some(milli) = gpus.strip_suffix('m') {
        return Some(GroupSpec { gpus: Gpus(number(milli)), ..group(name, number(count), 1, 1, 0, &skus) });
    }
    let gpus: u64 = number(gpus);
    Some(grows(group(name, number(count), gpus * 8, gpus * 64, gpus, &skus)))
}

pub fn spec_of(words: &[&str]) -> WorkloadSpec {
    let groups: Vec<GroupSpec> = words.iter().filter_map(|w| group_of(w)).collect();
    let mut spec = if groups.iter().any(GroupSpec::is_elastic) { ray(1, groups) } else { batch(groups) };
    spec.priority = option(words, "priority").map_or(0, number);
    spec.pool = option(words, "pool").map(|p| PoolName::new(p).unwrap());
    spec.preemptible = (!words.contains(&"firm")).into();
    let secret = |name: &str| serde_json::json!({"name": name, "mountPath": format!("/secrets/{name}")});
    spec.secrets =
        option(words, "secret").map(|name| serde_json::from_value(secret(name)).unwrap()).into_iter().collect();
    let token = |audience: &str| serde_json::json!({"audience": audience, "mountPath": format!("/tokens/{audience}")});
    spec.tokens = option(words, "token").map(|name| serde_json::from_value(token(name)).unwrap()).into_iter().collect();
    if let Some(after) = option(words, "failover") {
        (spec.on_cluster_loss, spec.failover_after) = (OnClusterLoss::Failover, Some(Span(number(after))));
    }
    spec.expected_duration = option(words, "lasts").map(|ms| Span(number(ms)));
    spec.retries.limit = option(words, "retries").map_or(0, number);
    let names = option(words, "after").into_iter().flat_map(|names| names.split(','));
    spec.depends_on = names.map(|n| Dependency { workload: WorkloadName::new(n).unwrap() }).collect();
    spec.placement.same_cluster_as = option(words, "beside").map(|n| WorkloadName::new(n).unwrap());
    spec.placement.spread = if words.contains(&"apart") { Spread::Nodes } else { Spread::None };
    spec.idle_timeout = option(words, "idle").map(|ms| Span(number(ms)));
    spec.placement.max_cost_per_hour = option(words, "most").map(|milli| Money(number(milli)));
    spec.ttl_after_finished = option(words, "ttl").map(|ms| Span(number(ms)));
    spec.placement.regions.require = option(words, "require").map(|r| Region::new(r).unwrap()).into_iter().collect();
    spec.placement.regions.prefer = option(words, "prefer").map(|r| Region::new(r).unwrap()).into_iter().collect();
    let reads = option(words, "reads").into_iter().flat_map(|names| names.split(','));
    let need = |n: &str| DataNeed { name: DataName::new(n.trim_end_matches('!')).unwrap(), require: n.ends_with('!') };
    spec.placement.data = reads.map(need).collect();
    spec
}

/// `SIZE in=CLUSTER,... region=R,...`
pub fn data_of(words: &[&str]) -> DataSpec {
    let places = |name| option(words, name).into_iter().flat_map(|all| all.split(','));
    DataSpec {
        size: words[0].parse().unwrap(),
        clusters: places("in").map(cluster).collect(),
        regions: places("region").map(|r| Region::new(r).unwrap()).collect(),
    }
}

pub fn pool(name: &str) -> PoolName {
    PoolName::new(name).unwrap()
}

/// `gpu/H100=8/16/2/static`: reservation, limit (`-`: none), share and whether the reservation is kept.
pub fn pool_of(words: &[&str]) -> PoolSpec {
    let quota = |word: &&str| {
        let (resource, parts) = word.split_once('=')?;
        let resource: Resource = resource.parse().ok()?;
        let parts: Vec<&str> = parts.split('/').collect();
        let amount = |at: usize| parts.get(at).filter(|p| **p != "-").map(|p| resource.parse(p).unwrap());
        let quota = Quota {
            reservation: amount(0).unwrap_or(0),
            limit: amount(1),
            share: parts.get(2).map_or(1, |p| number(p)),
            lending: if parts.contains(&"static") { Lending::Static } else { Lending::Elastic },
        };
        Some((resource, quota))
    };
    PoolSpec {
        parent: option(words, "parent").map(pool),
        resources: Quotas(words.iter().filter_map(quota).collect()),
        order: if words.contains(&"least") { LineOrder::LeastServed } else { LineOrder::Submitted },
        preemption_within: if words.contains(&"within") { WithinPool::ByPriority } else { WithinPool::Never },
        access: Access {
            submit: option(words, "allow").into_iter().flat_map(|all| all.split(',')).map(String::from).collect(),
            ..Access::default()
        },
    }
}

/// `cordon`, `drain`, `uncordon` and `remove`: what is no option is the reason.
fn cordoning(verb: &str, words: &[&str]) -> Command {
    let options = ["force", "for-good"];
    let said: Vec<&str> =
        words[1..].iter().filter(|w| !options.contains(w) && !w.starts_with("most=")).copied().collect();
    let (cluster, reason) = (cluster(words[0]), Some(said.join(" ")).filter(|reason| !reason.is_empty()));
    let to = match verb {
        "remove" => {
            let (reason, lost_for_good) = (reason.unwrap_or_default(), words.contains(&"for-good"));
            return Command::RemoveCluster { cluster, reason, lost_for_good };
        }
        "cordon" => Cordoning::Cordon { reason },
        "drain" => {
            let (force, max_at_once) = (words.contains(&"force"), option(words, "most").map(number));
            Cordoning::Drain { reason, force, max_at_once }
        }
        _ => Cordoning::Lift,
    };
    Command::Cordon { cluster, to }
}

impl World {
    pub fn at(&self) -> UnixMs {
        UnixMs(self.now)
    }

    fn pools(&self) -> String {
        let standing = plan::pools(&self.state, &self.fleet.capacity, UnixMs(self.now));
        let told = standing.iter().map(|(name, s)| {
            let gpus = |amounts: &Amounts| Gpus(amounts.of(&Resource::Gpu)).to_string();
            let idle = if s.idle.is_empty() { String::new() } else { format!(", {} of them idle", gpus(&s.idle)) };
            let raised = s.raised.as_ref().map(|raise| format!(" (raised until {})", raise.until)).unwrap_or_default();
            format!(
                "{name}: entitled to {} gpu{raised}, holds {}{idle}, waits for {} ({} queued, {} live)\n",
                gpus(&s.entitled),
                gpus(&s.held),
                gpus(&s.pending),
                s.queued,
                s.running
            )
        });
        told.collect()
    }

    fn line(&mut self, verb: &str, words: &[&str]) -> String {
        match verb {
            "nodes" => self.nodes(words),
            "ghosts" | "sick" => self.devices(verb, words),
            "stale" => {
                let there = self.fleet.capacity.clusters.get_mut(&cluster(words[0])).unwrap();
                (there.fresh, there.age_ms) = (false, 12_000);
                String::new()
            }
            "catchup" => {
                self.fleet.catch_up(&self.state, words[0]);
                String::new()
            }
            "frame" => {
                let there = self.fleet.capacity.clusters.get_mut(&cluster(words[0])).unwrap();
                there.watermark = CommandNumber(number(words[1]));
                for (name, gpus) in words[2..].iter().map(|word| word.split_once('=').unwrap()) {
                    let node = there.nodes.iter_mut().find(|n| n.name.as_str() == name).unwrap();
                    let held = node.total.gpus() - number::<u64>(gpus);
                    node.free = node.total.saturating_sub(&resources(held * 8, held * 64, held));
                }
                String::new()
            }
            "at" => {
                self.now = number(words[0]);
                String::new()
            }
            "plan" => {
                let told = self.propose(words);
                told + &self.commit()
            }
            "propose" => self.propose(words),
            "commit" => self.commit(),
            "forget" => {
                self.memory = plan::Memory::default();
                String::new()
            }
            "why" => self.why(words[0]),
            "forecast" => self.forecast(words[0]),
            "whatif" => self.whatif(words),
            "warn" => plan::warnings(&self.state, &self.fleet.capacity, &spec_of(words)).join("\n"),
            "show" => self.show(words[0]),
            "pools" => self.pools(),
            "busy" => {
                let there = self.fleet.capacity.clusters.get_mut(&cluster(words[0])).unwrap();
                let node = there.nodes.iter_mut().find(|n| n.name.as_str() == words[1]).unwrap();
                node.activity_percent = Some(number(words[2]));
                String::new()
            }
            "active" => {
                let there = self.fleet.capacity.clusters.get_mut(&cluster(words[0])).unwrap();
                let node = there.nodes.iter_mut().find(|n| n.name.as_str() == words[1]).unwrap();
                node.held_activity = Some(words[2]).filter(|w| *w != "-").map(number);
                String::new()
            }
            "outstanding" => {
                let orders = self.state.outstanding(&cluster(words[0]));
                orders.iter().map(|(n, o)| format!("{n}: {}\n", self.order(o))).collect()
            }
            _ => {
                let command = self.command(verb, words);
                self.apply(&command)
            }
        }
    }

    fn command(&self, verb: &str, words: &[&str]) -> Command {
        match verb {
            "epoch" => Command::OpenEpoch { epoch: Epoch(number(words[0])) },
            "submit" => {
                Command::Submit { key: key(words[0]), uid: uid(words[0]), spec: Box::new(spec_of(&words[1..])) }
            }
            "steal" => Command::Submit { key: key(words[0]), uid: Uid(1), spec: Box::new(spec_of(&words[1..])) },
            "report" => Command::Report { cluster: cluster(words[0]), report: word(words[1]) },
            "lose" => Command::LoseCluster { cluster: cluster(words[0]) },
            "cancel" => Command::Cancel { key: key(words[0]) },
            "cordon" | "drain" | "uncordon" | "remove" => cordoning(verb, words),
            "expire" => Command::Expire { key: key(words[0]), uid: uid(words[0]) },
            "delete" => Command::Delete { key: key(words[0]) },
            "forget" => {
                let (name, attempt) = words[0].split_once('/').unwrap();
                let attempt = AttemptId { workload: uid(name), number: AttemptNumber(number(attempt)) };
                Command::Forget { key: key(name), attempt, reason: words[1..].join(" ") }
            }
            "fence" => {
                let (name, attempt) = words[0].split_once('/').unwrap();
                let epoch = option(words, "epoch").map_or(self.state.epoch, |epoch| Epoch(number(epoch)));
                let attempt = AttemptNumber(number(attempt));
                Command::Fence(Box::new(Fence { epoch, key: key(name), uid: uid(name), attempt }))
            }
            "join" => self.join(words),
            "pool" => {
                Command::SetPool { name: pool(words[0]), spec: Box::new(pool_of(&words[1..])), expect: Expect::Any }
            }
            "data" => {
                let spec = Box::new(data_of(&words[1..]));
                Command::SetData { name: DataName::new(words[0]).unwrap(), spec, expect: Expect::Any }
            }
            "token-key" => {
                let key = option(words, "key").map(|n| PublicKey { x: [number(n); 32], y: [0; 32] });
                Command::SetTokenKey { replica: ReplicaId(number(words[0])), key }
            }
            "drop-data" => Command::DeleteData { name: DataName::new(words[0]).unwrap() },
            "drop-pool" => Command::DeletePool { name: pool(words[0]) },
            "owner" => {
                let spec = OwnershipSpec {
                    pool: option(words, "pool").map(pool),
                    parent: option(words, "parent").map(|o| Namespace::new(o).unwrap()),
                };
                Command::SetOwnershipRule { owner: Namespace::new(words[0]).unwrap(), spec, expect: Expect::Any }
            }
            "drop-owner" => Command::DeleteOwnershipRule { owner: Namespace::new(words[0]).unwrap() },
            _ => panic!("{verb:?} is no command"),
        }
    }

    fn join(&self, words: &[&str]) -> Command {
        let mut info = info(words[0], option(words, "region").unwrap_or("eu-west"));
        (info.fences, info.secrets) = (!words.contains(&"unfenced"), !words.contains(&"no-secrets"));
        if let Some(only) = option(words, "only") {
            info.frameworks.retain(|f: &Framework| f.to_string() == only);
        }
        for (sku, milli) in words.iter().filter_map(|w| w.strip_prefix("price=")?.split_once(':')) {
            info.prices.push(price(sku, number(milli)));
        }
        Command::Join {
            info,
            incarnation: Incarnation(option(words, "life").map_or(1, number)),
            last_command: CommandNumber(option(words, "last").map_or(0, number)),
            attempts: words[1..].iter().filter(|w| w.contains('/')).map(|w| word(w)).collect(),
        }
    }

    fn nodes(&mut self, words: &[&str]) -> String {
        let mut nodes = vec![];
        for pair in words[1..].chunks(2) {
            let (count, gpus) = pair[0].split_once('x').unwrap();
            // `2x8/4`: each of the 8 is given out in 4 parts; `2x8/1`: whole only.
            let (gpus, parts) = gpus.split_once('/').map_or((gpus, None), |(gpus, parts)| (gpus, Some(parts)));
            let sharing = match parts {
                None => Sharing::Any,
                Some("1") => Sharing::Whole,
                Some(parts) => Sharing::Parts(number(parts)),
            };
            let (count, gpus): (u64, u64) = (number(count), number(gpus));
            let sku = Some(pair[1]).filter(|s| *s != "-");
            let total = if gpus == 0 { resources(32, 128, 0) } else { resources(gpus * 8 + 4, gpus * 64 + 32, gpus) };
            for _ in 0..count {
                let name = format!("n{}", nodes.len());
                nodes.push(NodeCapacity { sharing, ..node(&name, sku, total) });
            }
        }
        self.fleet.set(words[0], nodes);
        String::new()
    }

    fn devices(&mut self, verb: &str, words: &[&str]) -> String {
        let there = self.fleet.capacity.clusters.get_mut(&cluster(words[0])).unwrap();
        let node = there.nodes.iter_mut().find(|n| n.name.as_str() == words[1]).unwrap();
        let count: u16 = number(words[2]);
        *(if verb == "sick" { &mut node.sick } else { &mut node.ghosts }) = count;
        node.free.gpu_milli -= u64::from(count) * 1000;
        String::new()
    }

    pub fn apply(&mut self, command: &Command) -> String {
        self.index += 1;
        let applied = self.state.apply(LogIndex(self.index), command, UnixMs(self.now));
        self.tell(&applied)
    }

    fn tell(&self, applied: &Applied) -> String {
        let mut told = match &applied.outcome {
            Ok(Outcome::Submitted { existed: true, .. }) => "ok: was there already\n".into(),
            Ok(Outcome::Ended { phase, .. }) => format!("ok: {phase}\n"),
            Ok(_) => "ok\n".into(),
            Err(refusal) => format!("refused: {refusal}\n"),
        };
        for effect in &applied.effects {
            let line = match effect {
                Effect::Command { cluster, number, order } => format!("-> {cluster} #{number}: {}", self.order(order)),
                Effect::ReportCommitted { cluster, attempt, revision } => {
                    format!("-> {cluster}: report {revision} on {} committed", self.attempt(*attempt))
                }
            };
            writeln!(told, "{line}").unwrap();
        }
        for key in &applied.changed {
            match self.state.workloads.get(key) {
                Some(w) => writeln!(told, "{} is {}", key.name, w.phase).unwrap(),
                None => writeln!(told, "{} is gone", key.name).unwrap(),
            }
        }
        told
    }

    /// Ids are shown by the workload's name, where it still has one.
    fn attempt(&self, id: AttemptId) -> String {
        let name = self.state.by_uid.get(&id.workload).map_or_else(|| "?".into(), |k| k.name.to_string());
        format!("{name}/{}", id.number)
    }

    fn order(&self, order: &Order) -> String {
        match order {
            Order::Launch(l) => format!("launch {}", self.attempt(l.attempt)),
            Order::Resize(r) => {
                let groups: Vec<String> = r.placement.iter().map(placement).collect();
                format!("resize {} to {}", self.attempt(r.attempt), groups.join("; "))
            }
            Order::Stop(s) => format!("stop {} ({:?}, {} ms)", self.attempt(s.attempt), s.cause, s.grace_ms),
        }
    }

    fn propose(&mut self, words: &[&str]) -> String {
        let limit = option(words, "limit").map_or(100, number);
        let mut plan = plan::plan_on(&self.state, &self.fleet.capacity, &self.memory, UnixMs(self.now), limit);
        let mut told = String::new();
        for b in &plan.bindings {
            let groups: Vec<String> = b.placement.iter().map(placement).collect();
            writeln!(told, "{}/{} to {}: {}", b.key.name, b.attempt, b.cluster, groups.join("; ")).unwrap();
        }
        for key in self.state.waiting() {
            if let Some(waiting) = plan.waiting.get(&self.state.workloads[key].uid) {
                writeln!(told, "{} {waiting}", key.name).unwrap();
            }
        }
        for p in &plan.preemptions {
            let victims: Vec<String> = p.victims.iter().map(|v| format!("{}/{}", v.key.name, v.attempt)).collect();
            let gives = |s: &Shrink| {
                let groups: Vec<String> = s.members.iter().map(placement).collect();
                format!("{}/{} ({})", s.key.name, s.attempt, groups.join("; "))
            };
            let all: Vec<String> = p.shrinks.iter().map(gives).chain(victims).collect();
            writeln!(told, "{} takes room back from {}", p.by.name, all.join(", ")).unwrap();
        }
        for g in &plan.growths {
            let groups: Vec<String> = g.members.iter().map(placement).collect();
            writeln!(told, "{}/{} grows by {}", g.key.name, g.attempt, groups.join("; ")).unwrap();
        }
        for end in &plan.idle {
            writeln!(told, "{}/{} is idle for too long, since {}", end.key.name, end.attempt, end.since).unwrap();
        }
        for end in &plan.drains {
            writeln!(told, "{}/{} ends, for {} is drained", end.key.name, end.attempt, end.cluster).unwrap();
        }
        for (key, _) in &plan.expirations {
            writeln!(told, "the record of {} is to go", key.name).unwrap();
        }
        for Raising { pool, raise, .. } in &plan.raises {
            match raise {
                Some(raise) => {
                    writeln!(told, "the part of {pool} is raised to {} until {}", raise.to, raise.until).unwrap()
                }
                None => writeln!(told, "the part of {pool} is not raised any more").unwrap(),
            }
        }
        self.drains = std::mem::take(&mut plan.drains);
        self.preempts = std::mem::take(&mut plan.preemptions);
        self.raises = std::mem::take(&mut plan.raises);
        self.expires = std::mem::take(&mut plan.expirations);
        self.idle = std::mem::take(&mut plan.idle);
        self.growths = std::mem::take(&mut plan.growths);
        self.memory = plan.memory;
        self.proposed = plan.bindings;
        told
    }

    fn commit(&mut self) -> String {
        let binds = std::mem::take(&mut self.proposed).into_iter().map(|b| Command::Bind(Box::new(b)));
        let drains = std::mem::take(&mut self.drains).into_iter().map(|end| Command::EndDrained(Box::new(end)));
        let preempts = std::mem::take(&mut self.preempts).into_iter().map(|p| Command::Preempt(Box::new(p)));
        let expires = std::mem::take(&mut self.expires).into_iter().map(|(key, uid)| Command::Expire { key, uid });
        let idle = std::mem::take(&mut self.idle).into_iter().map(|end| Command::EndIdle(Box::new(end)));
        let grows = std::mem::take(&mut self.growths).into_iter().map(|g| Command::Grow(Box::new(g)));
        let raises = std::mem::take(&mut self.raises).into_iter().map(|r| Command::RaisePool(Box::new(r)));
        let commands: Vec<Command> =
            binds.chain(drains).chain(preempts).chain(idle).chain(expires).chain(grows).chain(raises).collect();
        commands.iter().map(|c| self.apply(c)).collect()
    }

    fn why(&self, name: &str) -> String {
        let why = plan::explain(&self.state, &self.fleet.capacity, UnixMs(self.now), &key(name));
        let Some(why) = why else { return "there is no such workload".into() };
        let mut told = format!("{}: {}\n", why.phase, why.summary);
        for candidate in why.decision.iter().flat_map(|d| &d.candidates) {
            writeln!(told, "considered {candidate}").unwrap();
        }
        if let Some(avoided) = why.decision.as_ref().and_then(|d| d.despite) {
            writeln!(told, "there though {avoided}").unwrap();
        }
        let what = if why.phase == engine::Phase::Queued { "starts when" } else { "settled when" };
        why.cures.iter().for_each(|c| writeln!(told, "{what} {c}").unwrap());
        told
    }

    fn show(&self, name: &str) -> String {
        let Some(w) = self.state.workloads.get(&key(name)) else { return "there is no such workload".into() };
        w.timeline.iter().map(|m| format!("{} {}: {}\n", m.at, m.phase, m.what)).collect()
    }
}

fn placement(group: &protocol::control::GroupPlacement) -> String {
    let nodes: Vec<String> = group.nodes.iter().map(|n| format!("{} on {}", n.members, n.node)).collect();
    let sku = group.sku.as_ref().map(|s| format!(" [{s}]")).unwrap_or_default();
    format!("{}{sku} {}", group.group, nodes.join(" + "))
}
