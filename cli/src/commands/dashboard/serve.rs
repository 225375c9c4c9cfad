//! Connections to a port of this machine, each passed on to the page of the attempt that lives then. Where there is none, whoever asked gets
//! the reason as a page.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use protocol::ids::WorkloadKey;
use protocol::quic::relay;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::page_of;
use crate::client::{Client, PageConnection};
use crate::render::Out;

/// Connections at once; more wait until one is over.
const AT_ONCE: usize = 64;
/// The agent knows better how long a page may be silent after its visitor's last word; this is for one that does not say.
const LINGER: Duration = Duration::from_secs(60);
/// How much of a question is read, and for how long, before it is answered with why there is no page.
const QUESTION: (usize, Duration) = (64 * 1024, Duration::from_secs(1));
/// The pause after a connection that could not be taken, such as for want of files.
const PAUSE: Duration = Duration::from_millis(200);

/// Who visits the page.
pub(super) struct Visits {
    client: Client,
    key: WorkloadKey,
    out: Out,
    told: Mutex<Told>,
}

/// What was said already.
#[derive(Default)]
struct Told {
    attempt: u32,
    problem: String,
}

impl Visits {
    pub(super) fn new(client: Client, key: WorkloadKey, out: Out) -> Self {
        Self { client, key, out, told: Mutex::default() }
    }

    /// Says whose page it is, once for each attempt.
    pub(super) fn tell(&self, page: &PageConnection) {
        let mut told = self.told.lock().expect("no holder of this lock panics");
        told.problem.clear();
        if std::mem::replace(&mut told.attempt, page.attempt) == page.attempt {
            return;
        }
        let whose = page_of(&page.framework);
        self.out.note(&format!("{whose} of {}, attempt {}; Ctrl-C ends it", self.key, page.attempt));
        if let Some(token) = &page.token {
            self.out.note(&format!("it asks for this token: {token}"));
        }
    }

    /// Says what is wrong, once.
    fn complain(&self, problem: &str) {
        let mut told = self.told.lock().expect("no holder of this lock panics");
        if told.problem != problem {
            self.out.warn(problem);
            problem.clone_into(&mut told.problem);
        }
    }

    /// Passes connections on for ever.
    pub(super) async fn serve(&self, listener: TcpListener) -> anyhow::Result<()> {
        let mut visits = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if visits.len() < AT_ONCE => match accepted {
                    Ok((visitor, _)) => visits.push(Box::pin(self.visit(visitor))),
                    Err(error) => {
                        self.complain(&format!("a connection can't be taken: {error}"));
                        tokio::time::sleep(PAUSE).await;
                    }
                },
                Some(()) = visits.next(), if !visits.is_empty() => {}
            }
        }
    }

    async fn visit(&self, visitor: TcpStream) {
        // Bytes are passed on as they come.
        let _ = visitor.set_nodelay(true);
        match self.client.dashboard(&self.key).await {
            Ok(page) => {
                self.tell(&page);
                // Either end may break off at any time; the other sees it.
                let _ = relay(visitor, page.bytes, LINGER).await;
            }
            Err(error) => {
                let reason = error.to_string();
                self.complain(&reason);
                let _ = answer(visitor, &reason).await;
            }
        }
    }
}

/// Answers a browser's question with why there is no page. Its question is read first: else its end of the connection would be reset, and the
/// answer with it.
async fn answer(mut visitor: TcpStream, reason: &str) -> std::io::Result<()> {
    let (most, patience) = QUESTION;
    let asked = async {
        let (mut read, mut piece) = (vec![], [0; 1024]);
        while read.len() < most && !read.windows(4).any(|end| end == b"\r\n\r\n") {
            match visitor.read(&mut piece).await? {
                0 => break,
                length => read.extend_from_slice(&piece[..length]),
            }
        }
        std::io::Result::Ok(())
    };
    if let Ok(asked) = tokio::time::timeout(patience, asked).await {
        asked?;
    }
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\ncache-control: no-store\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{reason}\n",
        reason.len() + 1
    );
    visitor.write_all(answer.as_bytes()).await?;
    visitor.shutdown().await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn whoever_asks_for_a_page_that_is_not_there_gets_the_reason() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut browser = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (visitor, _) = listener.accept().await.unwrap();
        browser.write_all(b"GET /api/version HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        answer(visitor, "it waits for room").await.unwrap();
        let mut said = String::new();
        browser.read_to_string(&mut said).await.unwrap();
        assert!(said.starts_with("HTTP/1.1 503 ") && said.ends_with("\r\n\r\nit waits for room\n"), "{said}");
        assert!(said.contains("content-length: 18\r\n"), "{said}");
    }
}
