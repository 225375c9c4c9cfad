//! What a committed command asks of the world. Carried out by the leader alone; every effect is idempotent and can be
//! derived again from state.

use protocol::control::Order;
use protocol::ids::{AttemptId, ClusterName, CommandNumber};

/// Something to send to an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send this command.
    Command {
        /// To this cluster.
        cluster: ClusterName,
        /// Under this number.
        number: CommandNumber,
        /// The order.
        order: Order,
    },
    /// Tell the agent that its report is committed.
    ReportCommitted {
        /// The cluster.
        cluster: ClusterName,
        /// The attempt.
        attempt: AttemptId,
        /// The revision.
        revision: u64,
    },
}
