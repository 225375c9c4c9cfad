//! What a submitter is warned of. The workload is accepted all the same: clusters join and grow.

use protocol::workload::WorkloadSpec;

use crate::capacity::Capacity;
use crate::placement::obstacles::{bars, is_permanent, too_small};
use crate::placement::rooms::{Order, rooms};
use crate::state::State;

/// What to warn the submitter of: such as that no cluster could hold the gang even empty. The workload is accepted all the same.
pub fn warnings(state: &State, capacity: &Capacity, spec: &WorkloadSpec) -> Vec<String> {
    let Ok(framework) = spec.framework() else { return vec![] };
    let gang = spec.gang();
    let mut rooms = rooms(state, capacity);
    if rooms.is_empty() {
        return vec!["no cluster has joined yet: it waits until one does".into()];
    }
    let mut obstacles = vec![];
    for (name, room) in &mut rooms {
        let shapes = room.shapes(&gang, Order::BestFirst);
        match bars(room, spec, framework, &gang).or_else(|| too_small(room, &gang, &shapes)) {
            Some(obstacle) if is_permanent(&obstacle) => obstacles.push(format!("{name}: {obstacle}")),
            _ => return vec![],
        }
    }
    vec![format!("no cluster could hold it, even empty ({}): it waits until one can", obstacles.join("; "))]
}
