//! Signs of life on standard error, on terminals only, for whatever takes longer than two seconds.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How long a person waits without wondering.
const PATIENCE: Duration = Duration::from_secs(2);

/// A spinner with a message; hidden where standard error is no terminal.
pub fn spinner(message: impl Into<std::borrow::Cow<'static, str>>) -> ProgressBar {
    // indicatif hides a bar on stderr by itself where stderr is no terminal.
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style =
        ProgressStyle::with_template("{spinner} {wide_msg} {elapsed:>4}").expect("a constant template is valid");
    bar.set_style(style);
    bar.set_message(message);
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// A bar of so many steps with a message; hidden where standard error is no terminal.
pub fn bar(steps: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {wide_msg} {elapsed:>4}")
        .expect("a constant template is valid");
    bar.set_style(style);
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// Runs a future, and shows a spinner once it takes longer than two seconds.
pub async fn patiently<T>(message: &'static str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    if let Ok(done) = tokio::time::timeout(PATIENCE, &mut work).await {
        return done;
    }
    let bar = spinner(message);
    let done = work.await;
    bar.finish_and_clear();
    done
}
