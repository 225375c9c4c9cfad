//! What a cluster's agent was told and has not confirmed: derived from state, so that any leader can say it again.

use protocol::control::{LaunchOrder, Order, ResizeOrder, StopOrder};
use protocol::ids::{ClusterName, CommandNumber};

use super::{Attempt, State, Workload};

/// How long a stopped attempt has between the polite and the hard end, in ms.
pub const GRACE_MS: u64 = 10_000;

impl State {
    /// Commands to a cluster that its agent has not confirmed, by number: what a new leader, or a new session, sends again.
    ///
    /// A launch is outstanding until the first report, a resize until the agent has done all of it or the attempt is stopped, a stop
    /// until the attempt is gone. While a resize is, those before it by which members came are said again as it, under their own
    /// numbers: a frame that includes what came in between has to include those members. An attempt that was stopped before it
    /// was accepted has the stop alone: an agent that never saw the launch notes that it is over, and starts nothing for a
    /// workload that is not wanted any more; a launch that is still on its way has the lower number and comes first. Attempts of another life of the agent have neither: this
    /// one could start what still runs, or call gone what it never knew.
    pub fn outstanding(&self, cluster: &ClusterName) -> Vec<(CommandNumber, Order)> {
        let Some(member) = self.clusters.get(cluster) else { return vec![] };
        let mut orders: Vec<(CommandNumber, Order)> = self
            .live_in(cluster)
            .filter(|(_, attempt)| attempt.incarnation == member.incarnation)
            .flat_map(|(workload, attempt)| {
                let unseen = attempt.revision == 0 && attempt.stop.is_none();
                let launch = unseen.then(|| (attempt.launch, launch_order(workload, attempt)));
                launch.into_iter().chain(resize_orders(workload, attempt)).chain(stop_order(workload, attempt))
            })
            .collect();
        orders.sort_by_key(|(number, _)| *number);
        orders
    }
}

/// The order that starts an attempt.
pub(crate) fn launch_order(workload: &Workload, attempt: &Attempt) -> Order {
    Order::Launch(Box::new(LaunchOrder {
        attempt: workload.attempt_id(attempt.number),
        key: workload.key.clone(),
        spec: (*workload.spec).clone(),
        placement: attempt.placement.clone(),
    }))
}

/// The order that gives an attempt its present size, where that is not done yet.
pub(crate) fn resize_order(workload: &Workload, attempt: &Attempt) -> Option<(CommandNumber, Order)> {
    let resize = attempt.resize.as_ref().filter(|resize| !resize.settled && attempt.stop.is_none())?;
    let order = ResizeOrder {
        attempt: workload.attempt_id(attempt.number),
        placement: attempt.placement.clone(),
        grace_ms: GRACE_MS,
    };
    Some((resize.number, Order::Resize(Box::new(order))))
}

/// The same under the number of each order by which members came, and its own. An agent passes over what it has heard of.
fn resize_orders(workload: &Workload, attempt: &Attempt) -> Vec<(CommandNumber, Order)> {
    let Some((last, order)) = resize_order(workload, attempt) else { return vec![] };
    let arrived = attempt.arrivals.iter().map(|arrival| arrival.number);
    let numbers = arrived.filter(|number| attempt.launch < *number && *number < last).chain([last]);
    numbers.map(|number| (number, order.clone())).collect()
}

/// The order that ends an attempt, where that was asked for.
pub(crate) fn stop_order(workload: &Workload, attempt: &Attempt) -> Option<(CommandNumber, Order)> {
    let (number, cause) = attempt.stop?;
    let attempt = workload.attempt_id(attempt.number);
    Some((number, Order::Stop(StopOrder { attempt, cause, grace_ms: GRACE_MS })))
}
