//! Batch: one process a member, told its rank, the world's size and where rank 0 can listen.

use super::ports::free_ports;
use super::prepare::Layout;
use crate::guard::plan::{Plan, Process, Ready, Role};

/// Between the polite and the hard end of the others once one member failed.
const END_GRACE_MS: u64 = 5_000;

/// Lays out the members. The error is what a person reads.
pub(super) fn plan(layout: &Layout<'_>) -> Result<Plan, String> {
    let spec = layout.order.launch.spec.batch.as_ref().ok_or("the specification has no batch")?;
    let [port] = free_ports().map_err(|e| format!("no free port on 127.0.0.1: {e}"))?;
    let world = layout.members.len();
    let processes = layout
        .members
        .iter()
        .map(|member| Process {
            name: member.name(),
            argv: spec.command.clone(),
            env: layout.base.of_member(
                member,
                [
                    ("RANK", member.rank.to_string()),
                    ("LOCAL_RANK", member.local_rank.to_string()),
                    ("WORLD_SIZE", world.to_string()),
                    ("MASTER_ADDR", "127.0.0.1".to_owned()),
                    ("MASTER_PORT", port.to_string()),
                ],
            ),
            cwd: layout.working_dir.clone(),
            log: layout.log(&member.name()),
            role: Role::Decides,
        })
        .collect();
    Ok(Plan {
        attempt: layout.order.launch.attempt.to_string(),
        fence_ms: layout.fence_ms(),
        processes,
        ready: Ready::Started,
        end_grace_ms: END_GRACE_MS,
        verdict: None,
        scratch: vec![],
    })
}
