//! What must hold of the tree, checked before a change is taken. Each fault says what is wrong and what would be right.

use protocol::ids::{Namespace, PoolName};
use protocol::pool::{OwnershipSpec, PoolSpec, Resource};
use protocol::workload::SpecError;
use serde::{Deserialize, Serialize};

use super::{DEFAULT, MAX_DEPTH, MOST, Pools};

/// Why a change of the pools is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize, bincode::Encode, bincode::Decode)]
pub enum PoolFault {
    /// The pool's own specification has faults.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<SpecError>),
    /// No such pool.
    #[error("there is no pool {name}{}", did_you_mean(.nearest))]
    NoPool {
        /// The name that was given.
        name: PoolName,
        /// The nearest there is.
        nearest: Option<PoolName>,
    },
    /// It names a pool that is not there.
    #[error("{field}: there is no pool {name}{}", did_you_mean(.nearest))]
    NamesNoPool {
        /// The field that names it.
        field: String,
        /// The name that was given.
        name: PoolName,
        /// The nearest there is.
        nearest: Option<PoolName>,
    },
    /// It would be its own ancestor.
    #[error("spec.parent: {name} would be below itself: {}", .line.iter().map(ToString::to_string).collect::<Vec<_>>().join(" is below "))]
    Cycle {
        /// The pool.
        name: PoolName,
        /// The way from it to itself.
        line: Vec<PoolName>,
    },
    /// The tree would be too deep.
    #[error("spec.parent: the tree would have {depth} levels; at most {MAX_DEPTH} are allowed")]
    TooDeep {
        /// How deep it would be.
        depth: usize,
    },
    /// There are too many.
    #[error("there are {MOST} already, as many as are allowed: delete some")]
    TooMany,
    /// Only leaves take workloads.
    #[error(
        "spec.parent: pool {parent} has {workloads} workloads that have not ended, and only leaves take workloads: let them end first, or choose another parent"
    )]
    ParentTakesWorkloads {
        /// The parent.
        parent: PoolName,
        /// How many there are.
        workloads: u64,
    },
    /// The default pool is a leaf.
    #[error(
        "spec.parent: pool default takes the workloads for which no pool is named, so none can be below it: choose another parent"
    )]
    BelowDefault,
    /// More than the parent's.
    #[error(
        "spec.resources[\"{resource}\"].{what}: {name} would have {own}, more than the {above} of {parent}, which it is below"
    )]
    OverParent {
        /// The resource.
        resource: Resource,
        /// `reservation` or `limit`.
        what: Box<str>,
        /// The child.
        name: PoolName,
        /// The child's, as people write it.
        own: Box<str>,
        /// The parent.
        parent: PoolName,
        /// The parent's.
        above: Box<str>,
    },
    /// The children reserve more than there is to reserve.
    #[error(
        "spec.resources[\"{resource}\"].reservation: the pools below {parent} would reserve {sum} together, more than the {above} that it has reserved itself"
    )]
    ChildrenReserve {
        /// The resource.
        resource: Resource,
        /// The parent.
        parent: PoolName,
        /// Theirs together.
        sum: String,
        /// The parent's.
        above: String,
    },
    /// It can't go while workloads live in it.
    #[error("pool {name} has {workloads} workloads that have not ended: let them end, or cancel them, first")]
    LiveWorkloads {
        /// The pool.
        name: PoolName,
        /// How many.
        workloads: u64,
    },
    /// It can't go while there are pools below it.
    #[error("pool {name} has pools below it ({first} first): delete them first")]
    HasChildren {
        /// The pool.
        name: PoolName,
        /// The first of them.
        first: PoolName,
    },
    /// It can't go while an ownership rule leads to it.
    #[error("the ownership rule of {owner} leads to pool {name}: change the rule first")]
    Ruled {
        /// The pool.
        name: PoolName,
        /// The first such rule's owner.
        owner: Namespace,
    },
    /// It is always there.
    #[error("pool default is always there and can't be deleted")]
    Default,
    /// Only leaves take workloads.
    #[error("pool {name} has pools below it, and only leaves take workloads: name one of {}", .leaves.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    NoLeaf {
        /// The pool.
        name: PoolName,
        /// Pools below it, the first few.
        leaves: Vec<PoolName>,
    },
    /// It takes workloads of some namespaces only.
    #[error(
        "pool {name} takes no workloads of namespace {namespace}: spec.access.submit of pool {by} names only {}; submit to another pool, or have {namespace} added there",
        .allowed.join(", ")
    )]
    NotAllowed {
        /// The pool.
        name: PoolName,
        /// The workload's namespace.
        namespace: Namespace,
        /// The pool whose list decides: itself, or the nearest above it that has one.
        by: PoolName,
        /// Namespaces that may, the first few.
        allowed: Vec<String>,
    },
    /// An owner would be its own ancestor.
    #[error("spec.parent: owner {owner} would be above itself")]
    OwnerCycle {
        /// The owner.
        owner: Namespace,
    },
    /// No such rule.
    #[error("there is no ownership rule for {owner}")]
    NoRule {
        /// The owner.
        owner: Namespace,
    },
    /// Somebody changed it meanwhile.
    #[error("it was changed meanwhile (version {now}, not {expected}): read it again and repeat the change")]
    Changed {
        /// The version that was to be replaced.
        expected: u64,
        /// The version that is there; 0: none.
        now: u64,
    },
}

fn did_you_mean(name: &Option<PoolName>) -> String {
    name.as_ref().map_or_else(String::new, |name| format!(": did you mean {name}?"))
}

/// How many edits lead from one text to another (Levenshtein), as far as matters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

impl Pools {
    /// The fault of a name that no pool has.
    pub fn no_pool(&self, name: &PoolName) -> PoolFault {
        PoolFault::NoPool { name: name.clone(), nearest: self.nearest(name) }
    }

    fn names_no_pool(&self, field: &str, name: &PoolName) -> PoolFault {
        PoolFault::NamesNoPool { field: field.into(), name: name.clone(), nearest: self.nearest(name) }
    }

    fn nearest(&self, name: &PoolName) -> Option<PoolName> {
        let near = self.all().into_keys().map(|known| (distance(name.as_str(), known.as_str()), known)).min();
        let near = near.filter(|(distance, known)| *distance <= 1 + known.as_str().len() / 4);
        near.map(|(_, known)| known.clone())
    }

    /// Whether a workload may go to this pool.
    ///
    /// # Errors
    /// [`PoolFault::NoPool`] and [`PoolFault::NoLeaf`].
    pub fn check_takes_workloads(&self, name: &PoolName) -> Result<(), PoolFault> {
        if self.spec(name).is_none() {
            return Err(self.no_pool(name));
        }
        let below = self.children(Some(name));
        if below.is_empty() {
            return Ok(());
        }
        Err(PoolFault::NoLeaf { name: name.clone(), leaves: below.into_iter().take(5).cloned().collect() })
    }

    /// Whether workloads of a namespace may go to this pool: its own list decides, else that of the nearest pool above it that has
    /// one; without any, all may.
    ///
    /// # Errors
    /// [`PoolFault::NotAllowed`].
    pub fn check_may_submit(&self, name: &PoolName, namespace: &Namespace) -> Result<(), PoolFault> {
        let lists = self.line_up(name).filter_map(|at| Some((at, &self.spec(at)?.access.submit)));
        match lists.into_iter().find(|(_, list)| !list.is_empty()) {
            Some((by, list)) if !list.contains(namespace.as_str()) => Err(PoolFault::NotAllowed {
                name: name.clone(),
                namespace: namespace.clone(),
                by: by.clone(),
                allowed: list.iter().take(5).cloned().collect(),
            }),
            _ => Ok(()),
        }
    }

    /// Whether a pool may be as `spec` says. `live` tells how many workloads of a pool have not ended.
    ///
    /// # Errors
    /// The first rule that would not hold.
    pub fn check_set(
        &self,
        name: &PoolName,
        spec: &PoolSpec,
        live: impl Fn(&PoolName) -> u64,
    ) -> Result<(), PoolFault> {
        let problems = spec.problems();
        if !problems.is_empty() {
            return Err(PoolFault::Invalid(problems));
        }
        if self.pools.len() >= MOST && !self.pools.contains_key(name) {
            return Err(PoolFault::TooMany);
        }
        if let Some(parent) = &spec.parent {
            self.check_parent(name, parent, &live)?;
            self.check_below(name, spec, parent)?;
        }
        self.check_above(name, spec)
    }

    fn check_parent(
        &self,
        name: &PoolName,
        parent: &PoolName,
        live: impl Fn(&PoolName) -> u64,
    ) -> Result<(), PoolFault> {
        if self.spec(parent).is_none() && parent != name {
            return Err(self.names_no_pool("spec.parent", parent));
        }
        if *parent == *DEFAULT {
            return Err(PoolFault::BelowDefault);
        }
        let line: Vec<&PoolName> = self.line_up(parent).collect();
        if let Some(at) = line.iter().position(|above| *above == name) {
            let way = std::iter::once(name).chain(line.into_iter().take(at + 1));
            return Err(PoolFault::Cycle { name: name.clone(), line: way.cloned().collect() });
        }
        let depth = line.len() + self.height(name);
        if depth > MAX_DEPTH {
            return Err(PoolFault::TooDeep { depth });
        }
        match live(parent) {
            0 => Ok(()),
            workloads => Err(PoolFault::ParentTakesWorkloads { parent: parent.clone(), workloads }),
        }
    }

    /// The pool against its parent, and its siblings with it.
    fn check_below(&self, name: &PoolName, spec: &PoolSpec, parent: &PoolName) -> Result<(), PoolFault> {
        let Some(above) = self.spec(parent) else { return Err(self.names_no_pool("spec.parent", parent)) };
        check_child(name, spec, parent, above)?;
        let siblings = self.all().into_iter().filter(|(other, s)| s.parent.as_ref() == Some(parent) && *other != name);
        let specs: Vec<&PoolSpec> = siblings.map(|(_, s)| s).chain([spec]).collect();
        check_sums(parent, above, &specs)
    }

    /// The pool against those below it.
    fn check_above(&self, name: &PoolName, spec: &PoolSpec) -> Result<(), PoolFault> {
        let below: Vec<(&PoolName, &PoolSpec)> =
            self.all().into_iter().filter(|(other, s)| s.parent.as_ref() == Some(name) && *other != name).collect();
        if below.is_empty() {
            return Ok(());
        }
        below.iter().try_for_each(|(child, s)| check_child(child, s, name, spec))?;
        check_sums(name, spec, &below.into_iter().map(|(_, s)| s).collect::<Vec<_>>())
    }

    /// Whether a pool may go.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn check_delete(&self, name: &PoolName, live: u64) -> Result<(), PoolFault> {
        if *name == *DEFAULT {
            return Err(PoolFault::Default);
        }
        if !self.pools.contains_key(name) {
            return Err(self.no_pool(name));
        }
        if let Some(first) = self.children(Some(name)).first() {
            return Err(PoolFault::HasChildren { name: name.clone(), first: (*first).clone() });
        }
        if let Some((owner, _)) = self.owners.iter().find(|(_, rule)| rule.spec.pool.as_ref() == Some(name)) {
            return Err(PoolFault::Ruled { name: name.clone(), owner: owner.clone() });
        }
        match live {
            0 => Ok(()),
            workloads => Err(PoolFault::LiveWorkloads { name: name.clone(), workloads }),
        }
    }

    /// Whether an owner's rule may be as `spec` says.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn check_owner(&self, owner: &Namespace, spec: &OwnershipSpec) -> Result<(), PoolFault> {
        if self.owners.len() >= MOST && !self.owners.contains_key(owner) {
            return Err(PoolFault::TooMany);
        }
        if let Some(pool) = &spec.pool
            && self.spec(pool).is_none()
        {
            return Err(self.names_no_pool("spec.pool", pool));
        }
        let mut above = spec.parent.as_ref();
        for _ in 0..=MAX_DEPTH {
            match above {
                None => return Ok(()),
                Some(at) if at == owner => break,
                Some(at) => above = self.owners.get(at).and_then(|rule| rule.spec.parent.as_ref()),
            }
        }
        Err(PoolFault::OwnerCycle { owner: owner.clone() })
    }
}

fn check_child(name: &PoolName, spec: &PoolSpec, parent: &PoolName, above: &PoolSpec) -> Result<(), PoolFault> {
    let over = |resource: &Resource, what: &str, own: u64, limit: u64| PoolFault::OverParent {
        resource: resource.clone(),
        what: what.into(),
        name: name.clone(),
        own: resource.show(own).into(),
        parent: parent.clone(),
        above: resource.show(limit).into(),
    };
    for (resource, quota) in &spec.resources.0 {
        let parents = above.quota(resource);
        if quota.reservation > parents.reservation {
            return Err(over(resource, "reservation", quota.reservation, parents.reservation));
        }
        // A pool without a limit of its own has its parent's.
        if let Some(limit) = quota.limit.filter(|limit| *limit > parents.cap()) {
            return Err(over(resource, "limit", limit, parents.cap()));
        }
    }
    Ok(())
}

fn check_sums(parent: &PoolName, above: &PoolSpec, below: &[&PoolSpec]) -> Result<(), PoolFault> {
    let named = below.iter().flat_map(|spec| spec.resources.0.keys());
    for resource in named {
        let sum = below.iter().fold(0u64, |sum, spec| sum.saturating_add(spec.quota(resource).reservation));
        let reserved = above.quota(resource).reservation;
        if sum > reserved {
            return Err(PoolFault::ChildrenReserve {
                resource: resource.clone(),
                parent: parent.clone(),
                sum: resource.show(sum),
                above: resource.show(reserved),
            });
        }
    }
    Ok(())
}
