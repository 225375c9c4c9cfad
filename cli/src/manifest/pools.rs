//! Manifests of pools and ownership rules, checked like those of workloads: all files are read whole, or nothing happens.
//! Called by `pool apply`.

use protocol::api::Metadata;
use protocol::pool::objects::{OWNERSHIP_KIND, OwnershipObject, POOL_KIND, PoolObject};
use serde::de::DeserializeOwned;

use super::locate::Tree;
use super::source::{self, Document};
use super::{Problem, explain, kind};
use crate::exit::Failure;

/// One object of a file.
#[derive(Debug, Clone)]
pub enum Rule {
    /// A pool.
    Pool(Box<PoolObject>),
    /// An ownership rule.
    Owner(Box<OwnershipObject>),
}

impl Rule {
    fn metadata(&mut self) -> &mut Metadata {
        match self {
            Rule::Pool(pool) => &mut pool.metadata,
            Rule::Owner(rule) => &mut rule.metadata,
        }
    }
}

/// Reads every pool and rule of every file (`-` is standard input); the problems of all of them together otherwise.
pub fn read(files: &[String]) -> Result<Vec<Rule>, Failure> {
    super::read_each(files, rule)
}

fn rule(document: &Document<'_>) -> Result<Rule, Vec<Problem>> {
    let tree = Tree::of(document.text).map_err(|e| vec![explain::yaml(&e, None, document)])?;
    let is_rule = tree.scalar("kind") == Some(OWNERSHIP_KIND);
    kind(&tree, document, &[POOL_KIND, OWNERSHIP_KIND])?;
    let mut rule = match is_rule {
        true => Rule::Owner(Box::new(parse(&tree, document)?)),
        false => Rule::Pool(Box::new(parse(&tree, document)?)),
    };
    let at = |field: &str| tree.find(field).map(|(line, column)| (line + document.first_line, column));
    let mut problems = vec![];
    if let Rule::Pool(pool) = &rule {
        let found = pool.spec.problems().into_iter();
        problems.extend(found.map(|p| Problem { at: at(&p.field), field: p.field, what: p.problem }));
    }
    if rule.metadata().namespace.is_some() {
        let field = "metadata.namespace";
        let what = "pools and ownership rules are in no namespace: leave it out".into();
        problems.push(Problem { at: at(field), field: field.into(), what });
    }
    forget_server(&mut rule);
    problems.sort_by_key(|problem| problem.at);
    if problems.is_empty() { Ok(rule) } else { Err(problems) }
}

fn parse<T: DeserializeOwned>(tree: &Tree, document: &Document<'_>) -> Result<T, Vec<Problem>> {
    serde_saphyr::from_str_with_options(document.text, source::options())
        .map_err(|e| vec![explain::yaml(&e, Some(tree), document)])
}

/// Drops what only the server writes, so that what `pools -o yaml` printed can be applied again. The version stays: who
/// changes what they read does not overwrite what they have not seen.
fn forget_server(rule: &mut Rule) {
    let metadata = rule.metadata();
    metadata.creation_timestamp = None;
    metadata.deletion_timestamp = None;
    match rule {
        Rule::Pool(pool) => pool.status = None,
        Rule::Owner(rule) => rule.status = None,
    }
}
