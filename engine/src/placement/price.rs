//! What a gang may cost an hour: the models that it can pay for in a cluster.

use std::borrow::Cow;

use protocol::resources::Money;
use protocol::sku::Sku;
use protocol::workload::{GroupNeed, WorkloadSpec};

use super::rooms::{Order, Room};
use crate::reasons::Obstacle;

/// How many combinations of models are tried where several groups share the money.
const MOST_COMBINATIONS: usize = 64;

/// A model that a group accepts, and what all of the group costs an hour on it.
type Choice = (Sku, u64);

/// The gang with only those models that it can pay for in this cluster: several gangs, the best first, where one group's choice
/// leaves less to another. None where money does not matter.
///
/// # Errors
/// The cheapest models are too dear, or no price is known for any.
pub(crate) fn affordable(
    room: &Room<'_>,
    spec: &WorkloadSpec,
    gang: &[GroupNeed],
) -> Result<Option<Vec<Vec<GroupNeed>>>, Obstacle> {
    let Some(most) = spec.placement.max_cost_per_hour else { return Ok(None) };
    let paid: Vec<usize> = (0..gang.len()).filter(|g| gang[*g].each.gpu_milli > 0).collect();
    let choices = paid.iter().map(|g| choices(room, &gang[*g])).collect::<Result<Vec<_>, _>>()?;
    let least = |of: &Vec<Choice>| of.iter().map(|(_, cost)| *cost).min().unwrap_or(0);
    let cheapest = choices.iter().map(least).fold(0, u64::saturating_add);
    if cheapest > most.0 {
        return Err(Obstacle::TooDear { most, least: Money(cheapest) });
    }
    // A group may cost what the cheapest choices of the others leave it.
    let left: Vec<Vec<Choice>> = choices
        .iter()
        .map(|of| {
            let spare = most.0 - (cheapest - least(of));
            of.iter().filter(|(_, cost)| *cost <= spare).cloned().collect()
        })
        .collect();
    let dearest =
        left.iter().map(|of| of.iter().map(|(_, cost)| *cost).max().unwrap_or(0)).fold(0, u64::saturating_add);
    if dearest <= most.0 {
        return Ok(Some(vec![with(gang, &paid, &left)]));
    }
    let all = combinations(&left).filter(|one| sum(one) <= most.0).take(MOST_COMBINATIONS);
    Ok(Some(
        all.map(|one| with(gang, &paid, &one.into_iter().map(|choice| vec![choice]).collect::<Vec<_>>())).collect(),
    ))
}

/// The gangs of which one has to find room in this cluster, the best first: those that it can pay for, or itself. None where it
/// can pay for none.
pub(crate) fn payable<'g>(room: &Room<'_>, spec: &WorkloadSpec, gang: &'g [GroupNeed]) -> Vec<Cow<'g, [GroupNeed]>> {
    match affordable(room, spec, gang) {
        Ok(None) => vec![Cow::Borrowed(gang)],
        Ok(Some(all)) => all.into_iter().map(Cow::Owned).collect(),
        Err(_) => vec![],
    }
}

/// What thousandths of a GPU cost an hour at a price for a GPU-hour, both in thousandths of the currency.
pub(crate) fn cost(milli_per_gpu_hour: u64, gpu_milli: u64) -> u64 {
    let cost = (u128::from(milli_per_gpu_hour) * u128::from(gpu_milli)).div_ceil(1000);
    u64::try_from(cost).unwrap_or(u64::MAX)
}

/// The models that a group accepts here and whose price is known, best first.
fn choices(room: &Room<'_>, need: &GroupNeed) -> Result<Vec<Choice>, Obstacle> {
    let milli = need.each.times(u64::from(need.count)).gpu_milli;
    let accepted: Vec<u16> = room.accepted(need, Order::BestFirst).into_iter().flatten().collect();
    let known =
        accepted.iter().filter_map(|sku| Some((room.sku(Some(*sku))?.clone(), cost(room.price(Some(*sku))?, milli))));
    let known: Vec<Choice> = known.collect();
    if known.is_empty() {
        let models = accepted.iter().filter_map(|sku| room.sku(Some(*sku)).cloned()).collect();
        return Err(Obstacle::NoPrice { group: need.name.clone(), models });
    }
    Ok(known)
}

fn sum(choices: &[Choice]) -> u64 {
    choices.iter().map(|(_, cost)| *cost).fold(0, u64::saturating_add)
}

fn with(gang: &[GroupNeed], paid: &[usize], left: &[Vec<Choice>]) -> Vec<GroupNeed> {
    let mut gang = gang.to_vec();
    for (g, choices) in paid.iter().zip(left) {
        gang[*g].skus = choices.iter().map(|(sku, _)| sku.clone()).collect();
    }
    gang
}

/// One choice of each, the first group's changing last.
fn combinations(left: &[Vec<Choice>]) -> impl Iterator<Item = Vec<Choice>> + '_ {
    let all = left.iter().map(|of| of.len() as u64).fold(1, u64::saturating_mul);
    (0..all).map(move |number| {
        let mut rest = number;
        let mut one: Vec<Choice> = left
            .iter()
            .rev()
            .map(|of| {
                let at = (rest % of.len() as u64) as usize;
                rest /= of.len() as u64;
                of[at].clone()
            })
            .collect();
        one.reverse();
        one
    })
}
