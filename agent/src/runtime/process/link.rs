//! The agent's end of a guard's socket.

use std::fs::File;
use std::io;
use std::path::Path;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::guard::record::Stop;
use crate::guard::socket::{Request, SOCKET, Status, short_path};

/// A connection to a living guard.
pub(super) struct Link {
    lines: Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
}

impl Link {
    /// Connects to the guard of the attempt in this folder and asks for its status.
    pub(super) async fn open(dir: &Path) -> io::Result<Self> {
        let folder = File::open(dir)?;
        let (read, write) = UnixStream::connect(short_path(&folder, SOCKET)).await?.into_split();
        let mut link = Self { lines: BufReader::new(read).lines(), write };
        link.ask(Request::Watch).await?;
        Ok(link)
    }

    /// The next status; `None` once the connection ended. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Option<Status> {
        let line = self.lines.next_line().await.ok()??;
        serde_json::from_str(&line).ok()
    }

    /// Asks the guard to end the attempt.
    pub(super) async fn stop(&mut self, stop: Stop) -> io::Result<()> {
        self.ask(Request::Stop(stop)).await
    }

    /// Asks the guard to look at which members are to come and go.
    pub(super) async fn resize(&mut self) -> io::Result<()> {
        self.ask(Request::Resize).await
    }

    /// Lets the attempt go on for this long from when the guard asked.
    pub(super) async fn go_on(&mut self, asked: u64, ttl_ms: u64) -> io::Result<()> {
        self.ask(Request::GoOn { asked, ttl_ms }).await
    }

    async fn ask(&mut self, request: Request) -> io::Result<()> {
        let line = serde_json::to_string(&request)?;
        self.write.write_all(format!("{line}\n").as_bytes()).await
    }
}
