//! Between the cluster role and what it commands: its outputs as calls of the runtime, in order, and what comes back.

use std::sync::Arc;

use protocol::control::{AttemptState, LaunchOrder};
use protocol::errors::FailureClass;
use protocol::ids::{AttemptId, CommandNumber, MonotonicMs};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::core::Event;
use crate::cluster::{Assignment, Input, MemberAssignment};
use crate::node::NodeSampler;
use crate::runtime::any::AnyRuntime;
use crate::runtime::{Devices, Runtime, RuntimeError};

/// Something that the cluster role wants done.
pub enum RuntimeOrder {
    /// Start an attempt, as this command says.
    Start(CommandNumber, Box<LaunchOrder>, Assignment),
    /// Give an attempt these members, and end these within this grace, in ms.
    Resize(Box<LaunchOrder>, Assignment, Vec<MemberAssignment>, u64),
    /// End an attempt within this grace, in ms.
    Stop(AttemptId, u64),
    /// Let an attempt go on until then.
    LetGoOn(AttemptId, MonotonicMs),
    /// Drop an attempt's record.
    Forget(AttemptId),
    /// Ask this process's own node role for a full frame.
    FullFrame,
}

/// Carries orders out one after the other: a stop never overtakes its start.
pub async fn carry_out(
    runtime: AnyRuntime,
    mut orders: mpsc::UnboundedReceiver<RuntimeOrder>,
    inbox: mpsc::Sender<Event>,
    sampler: Option<Arc<NodeSampler>>,
    stop: CancellationToken,
) {
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            () = stop.cancelled() => None,
        };
        let (attempt, result) = match order {
            None => return,
            Some(RuntimeOrder::Start(number, order, assignment)) => {
                (order.attempt, runtime.start(number, &order, &Devices::from(&assignment)).await)
            }
            Some(RuntimeOrder::Resize(order, assignment, leaving, grace_ms)) => {
                let resized = runtime.resize(&order, &assignment.members, &leaving, grace_ms).await;
                if let Err(error) = resized {
                    // The order is durable here: it is said again when the agent starts again.
                    tracing::error!(attempt = %order.attempt, %error, "an attempt's size is not changed yet");
                }
                continue;
            }
            Some(RuntimeOrder::Stop(attempt, grace_ms)) => (attempt, runtime.stop(attempt, grace_ms).await),
            Some(RuntimeOrder::LetGoOn(attempt, until)) => {
                runtime.let_go_on(attempt, until);
                continue;
            }
            Some(RuntimeOrder::Forget(attempt)) => {
                if let Err(error) = runtime.forget(attempt).await {
                    tracing::warn!(%attempt, %error, "an ended attempt's record stays");
                }
                continue;
            }
            Some(RuntimeOrder::FullFrame) => {
                if let Some(sampler) = &sampler {
                    sampler.request_full();
                }
                continue;
            }
        };
        if let Err(error) = result {
            report_failure(&inbox, attempt, error).await;
        }
    }
}

/// The runtime took no order for an attempt, and started nothing.
async fn report_failure(inbox: &mpsc::Sender<Event>, attempt: AttemptId, error: RuntimeError) {
    let state =
        AttemptState::Failed { class: FailureClass::Infrastructure, message: error.to_string(), exit_code: None };
    let _ = inbox.send(Event::Input(Input::Runtime { attempt, state })).await;
}

/// Passes on, in order, what comes out of a channel, as the input that it means to the cluster role.
pub async fn forward<T>(
    mut from: mpsc::Receiver<T>,
    inbox: mpsc::Sender<Event>,
    stop: CancellationToken,
    meaning: impl Fn(T) -> Input,
) {
    loop {
        let next = tokio::select! {
            next = from.recv() => next,
            () = stop.cancelled() => None,
        };
        let Some(next) = next else { return };
        if inbox.send(Event::Input(meaning(next))).await.is_err() {
            return;
        }
    }
}
