//! `demo --chaos`: kills the leading coordinator while workloads run, and brings it back from its disk later.

use std::time::{Duration, Instant};

use anyhow::Context;
use protocol::ids::ReplicaId;

use crate::dev::Federation;

/// How long the killed one stays away.
const AWAY: Duration = Duration::from_secs(5);

/// What became of the kill.
pub enum Chaos {
    /// Not asked for, or done.
    Off,
    /// Still to be done.
    Armed,
    /// Killed, and to come back.
    Killed(ReplicaId, Instant),
}

impl Chaos {
    /// Kills the leader, once.
    pub async fn strike(&mut self, federation: &mut Federation) -> anyhow::Result<()> {
        if !matches!(self, Chaos::Armed) {
            return Ok(());
        }
        let (leader, _) = federation.leader().await.context("no coordinator leads")?;
        let began = Instant::now();
        let killed = federation.take_coordinator(leader);
        let end = tokio::spawn(async move {
            if let Some(running) = killed {
                running.stop().await;
            }
        });
        let (next, led_after) = loop {
            if let Some((next, _)) = federation.leader().await {
                break (next, began.elapsed());
            }
            anyhow::ensure!(began.elapsed() < Duration::from_secs(30), "no new leader within 30 s");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        // Its sockets are free again once its last task is gone.
        end.await?;
        say!("chaos: killed coordinator {leader}, which led; {next} leads {} ms later", led_after.as_millis());
        *self = Chaos::Killed(leader, Instant::now());
        Ok(())
    }

    /// Brings the killed one back, when it is time.
    pub async fn mend(&mut self, federation: &mut Federation, at_once: bool) -> anyhow::Result<()> {
        if let Chaos::Killed(id, since) = self
            && (at_once || since.elapsed() > AWAY)
        {
            federation.restart_coordinator(*id).await?;
            say!("chaos: coordinator {id} is back, from its disk");
            *self = Chaos::Off;
        }
        Ok(())
    }
}
