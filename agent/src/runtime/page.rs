//! The page that an attempt serves itself: Ray's dashboard, Spark's UI. One connection to it at a time, each a stream of bytes.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use protocol::control::AttemptState;
use protocol::workload::Framework;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

/// How long a page may take to be reached.
pub const REACH: Duration = Duration::from_secs(5);

/// Bytes both ways.
trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// A connection to a page.
pub struct Page {
    bytes: Box<dyn Bytes>,
    /// What the page asks a visitor for, where it does.
    pub token: Option<String>,
    /// How long it may be silent once its visitor has said the last word.
    pub linger: Duration,
}

impl Page {
    pub(super) fn new(
        bytes: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        token: Option<String>,
        linger: Duration,
    ) -> Self {
        Self { bytes: Box::new(bytes), token, linger }
    }
}

impl AsyncRead for Page {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.bytes).poll_read(cx, buf)
    }
}

impl AsyncWrite for Page {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.bytes).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.bytes).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.bytes).poll_shutdown(cx)
    }
}

/// Ends once the attempt that has this state is gone; at once where it is not known.
pub(super) async fn gone(state: Option<watch::Receiver<AttemptState>>) {
    if let Some(mut state) = state {
        let _ = state.wait_for(AttemptState::is_final).await;
    }
}

/// Why there is no connection to an attempt's page. Told to whoever asked.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// It does not run here.
    #[error("the attempt does not run there: it has ended, or is not begun yet")]
    NoAttempt,
    /// Its framework has none.
    #[error("{0} has no page of its own; Ray and Spark have")]
    NoPage(Framework),
    /// It will have one.
    #[error("{whose} is not up yet: {missing}")]
    NotYet {
        /// Which page.
        whose: &'static str,
        /// What it waits for.
        missing: String,
    },
    /// Nobody answers there.
    #[error("{whose} can't be reached: {cause}")]
    Unreachable {
        /// Which page.
        whose: &'static str,
        /// What was said instead.
        cause: String,
    },
    /// What is kept of the attempt can't be read.
    #[error("what is kept of the attempt can't be read: {0}")]
    Record(String),
}

/// What a framework's page is called; none where it has none.
pub(super) fn name_of(framework: Framework) -> Result<&'static str, PageError> {
    match framework {
        Framework::Ray => Ok("Ray's dashboard"),
        Framework::Spark => Ok("Spark's UI"),
        Framework::Batch => Err(PageError::NoPage(framework)),
    }
}
