//! The tree of pools with bars, and the ownership rules.

use protocol::pool::objects::{OwnershipObject, PoolObject, PoolPart};
use protocol::pool::{Lending, Resource};

use super::Out;
use super::table::{Table, Tone, cell, known};

/// Characters of a bar.
const BAR: u128 = 24;

/// Every pool, each below its parent.
pub fn tree(pools: &[PoolObject], resource: Option<&Resource>, out: &Out) -> String {
    let mut columns = vec!["POOL", "RESOURCE", "BAR", "#RESERVED", "#ENTITLED", "#HELD", "#IDLE", "#PENDING", "#LIMIT"];
    columns.extend(["#SHARE", "#QUEUED", "#RUNNING"]);
    let mut table = Table::new(&columns);
    for (line, pool) in lines(pools, None, "") {
        let shown = resources(pools, pool, resource, out);
        for (i, resource) in shown.iter().enumerate() {
            let name = if i == 0 { line.clone() } else { String::new() };
            table.row(row(name, pool, resource, fleet(pools, resource), i == 0));
        }
    }
    table.text(out) + &raised(pools)
}

/// A line for each part that is raised.
fn raised(pools: &[PoolObject]) -> String {
    let parts =
        pools.iter().flat_map(|pool| pool.status.iter().flat_map(|s| &s.resources).map(move |part| (pool, part)));
    let line = |(pool, (resource, part)): (&PoolObject, (&Resource, &PoolPart))| {
        let raised = part.raised.as_ref()?;
        let (name, to, until) = (&pool.metadata.name, &raised.to, &raised.until);
        Some(format!("The part of {name} is raised to {to} {resource} until {until}, for what it missed.\n"))
    };
    parts.filter_map(line).collect()
}

/// Pools in the tree's order, each with its name after the lines that lead to it.
fn lines<'a>(pools: &'a [PoolObject], parent: Option<&str>, indent: &str) -> Vec<(String, &'a PoolObject)> {
    let above = |p: &PoolObject| p.spec.parent.as_ref().map(ToString::to_string);
    let below: Vec<&PoolObject> = pools.iter().filter(|p| above(p).as_deref() == parent).collect();
    let mut found = vec![];
    for (i, pool) in below.iter().enumerate() {
        let last = i + 1 == below.len();
        let (branch, rest) = match (parent, last) {
            (None, _) => ("", ""),
            (_, true) => ("└─ ", "   "),
            (_, false) => ("├─ ", "│  "),
        };
        let name = pool.metadata.name.as_str();
        found.push((format!("{indent}{branch}{name}"), *pool));
        // The server's tree is never deeper than this; whatever else answers must not lead us in circles.
        if indent.chars().count() < 3 * 16 {
            found.extend(lines(pools, Some(name), &format!("{indent}{rest}")));
        }
    }
    found
}

/// The resources of which a pool's rows tell.
fn resources(pools: &[PoolObject], pool: &PoolObject, asked: Option<&Resource>, out: &Out) -> Vec<Resource> {
    if let Some(asked) = asked {
        return vec![asked.clone()];
    }
    if out.wide() {
        return pool.status.iter().flat_map(|s| s.resources.keys().cloned()).collect();
    }
    let gpus = fleet(pools, &Resource::Gpu) > 0;
    let named =
        pools.iter().any(|p| p.spec.resources.0.keys().any(|r| matches!(r, Resource::Gpu | Resource::Model(_))));
    vec![if gpus || named { Resource::Gpu } else { Resource::Cpu }]
}

fn part<'a>(pool: &'a PoolObject, resource: &Resource) -> Option<&'a PoolPart> {
    pool.status.as_ref()?.resources.get(resource)
}

/// An amount as the server wrote it; 0 where it can't be read.
fn amount(resource: &Resource, text: Option<&str>) -> u64 {
    text.and_then(|text| resource.parse(text).ok()).unwrap_or(0)
}

/// What the pools at the top are entitled to together.
fn fleet(pools: &[PoolObject], resource: &Resource) -> u64 {
    let top = pools.iter().filter(|p| p.spec.parent.is_none());
    let of = |p: &PoolObject| {
        let part = part(p, resource);
        let entitled = amount(resource, part.map(|p| p.entitlement.as_str()));
        entitled.max(amount(resource, part.map(|p| p.allocated.as_str())))
    };
    top.map(of).fold(0, u64::saturating_add)
}

fn row(name: String, pool: &PoolObject, resource: &Resource, fleet: u64, first: bool) -> Vec<(String, Tone)> {
    let status = pool.status.clone().unwrap_or_default();
    let part = part(pool, resource).cloned().unwrap_or_default();
    let of = |text: &str| amount(resource, Some(text));
    let (held, entitled) = (of(&part.allocated), of(&part.entitlement));
    let idle = amount(resource, part.idle.as_deref());
    let fixed = if part.lending == Lending::Static { " static" } else { "" };
    let held_tone = if held > entitled { Tone::Pending } else { Tone::Plain };
    let count = |n: u64| known(first.then_some(n));
    let text = |text: &str| cell(if text.is_empty() { "0" } else { text });
    vec![
        cell(name),
        cell(resource),
        cell(bar(held, idle, entitled, fleet)),
        cell(format!("{}{fixed}", text(&part.reservation).0)),
        text(&part.entitlement),
        (text(&part.allocated).0, held_tone),
        known(part.idle.as_deref()),
        text(&part.pending),
        known(part.limit.as_deref()),
        cell(part.share.max(1)),
        count(status.queued),
        count(status.running),
    ]
}

/// The whole fleet as a bar: what is held and used, held and idle, held beyond what the pool is entitled to, and entitled to
/// and not held.
fn bar(held: u64, idle: u64, entitled: u64, fleet: u64) -> String {
    let at = |amount: u64| match fleet {
        0 => 0,
        fleet => (u128::from(amount.min(fleet)) * BAR).div_ceil(u128::from(fleet)),
    };
    let (used, within) = (at(held.saturating_sub(idle)), at(entitled));
    let held = at(held);
    let mark = |i: u128| match i {
        _ if i >= held && i < within => '-',
        _ if i >= held => '.',
        _ if i >= within => '!',
        _ if i >= used => 'o',
        _ => '#',
    };
    format!("[{}]", (0..BAR).map(mark).collect::<String>())
}

/// Ownership rules as a table.
pub fn rules(rules: &[OwnershipObject], out: &Out) -> String {
    let mut table = Table::new(&["OWNER", "POOL", "PARENT", "LEADS TO"]);
    for rule in rules {
        table.row(vec![
            cell(&rule.metadata.name),
            known(rule.spec.pool.as_ref()),
            known(rule.spec.parent.as_ref()),
            known(rule.status.as_ref().map(|s| &s.pool)),
        ]);
    }
    if table.is_empty() {
        "No ownership rules: workloads that name no pool go to default.\n".into()
    } else {
        table.text(out)
    }
}
