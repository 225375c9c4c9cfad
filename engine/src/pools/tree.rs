//! The shape of the tree: who is below whom. A pool without pools below it is a leaf and takes workloads.

use protocol::ids::PoolName;

use super::Pools;

/// The deepest that a tree may be: a pool at the top has depth 1.
pub const MAX_DEPTH: usize = 16;

impl Pools {
    /// The pools directly below one, by name; below none: those at the top.
    pub fn children(&self, parent: Option<&PoolName>) -> Vec<&PoolName> {
        self.all().into_iter().filter(|(_, spec)| spec.parent.as_ref() == parent).map(|(name, _)| name).collect()
    }

    /// Whether a pool takes workloads.
    pub fn is_leaf(&self, name: &PoolName) -> bool {
        self.spec(name).is_some() && !self.all().values().any(|spec| spec.parent.as_ref() == Some(name))
    }

    /// A pool and those above it, the nearest first. Ends after as many as a tree can be deep.
    pub fn line_up<'a>(&'a self, name: &'a PoolName) -> impl Iterator<Item = &'a PoolName> {
        std::iter::successors(Some(name), |at| self.spec(at)?.parent.as_ref()).take(MAX_DEPTH + 1)
    }

    /// How many levels a pool and those below it make.
    pub(super) fn height(&self, name: &PoolName) -> usize {
        let mut level: Vec<&PoolName> = vec![name];
        let mut height = 0;
        while !level.is_empty() && height <= MAX_DEPTH {
            level = level.iter().flat_map(|at| self.children(Some(at))).collect();
            height += 1;
        }
        height
    }
}
