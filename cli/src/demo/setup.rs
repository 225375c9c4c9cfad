//! Installs what Ray and Spark need, once, with its progress shown.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use protocol::workload::Framework;

use crate::dev::Federation;

/// Provisions every framework that can run here; returns those.
pub async fn provision(federation: &Federation) -> anyhow::Result<Vec<Framework>> {
    let agent = federation.agents().first().context("the fleet has no cluster")?;
    for (framework, why) in &agent.missing {
        say!("without {framework}: {why}");
    }
    for framework in [Framework::Ray, Framework::Spark] {
        if !agent.cluster.frameworks.contains(&framework) {
            continue;
        }
        let began = Instant::now();
        let bar = ProgressBar::new_spinner();
        bar.set_style(ProgressStyle::with_template("{spinner} {msg} ({elapsed})").context("the bar's template")?);
        bar.enable_steady_tick(Duration::from_millis(200));
        bar.set_message(format!("setting up {framework}"));
        let shown = bar.clone();
        let progress = Arc::new(move |text: &str| shown.set_message(text.to_owned()));
        let outcome = agent.runtime.provision(framework, progress).await;
        bar.finish_and_clear();
        outcome.with_context(|| format!("{framework} could not be set up"))?;
        if began.elapsed() > Duration::from_secs(2) {
            say!("{framework} set up in {:.0} s; the next time it is there", began.elapsed().as_secs_f64());
        }
    }
    Ok(agent.cluster.frameworks.clone())
}
