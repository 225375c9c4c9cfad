//! Submits workloads over one kept-alive HTTP/1.1 connection.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::load::Client;

/// A small batch workload, as a person would post it.
pub fn workload(name: &str) -> String {
    format!(
        r#"{{"apiVersion":"tidewater.dev/v1","kind":"Workload","metadata":{{"name":"{name}"}},"spec":{{"batch":{{"command":["true"],"groups":[{{"name":"main","count":1,"cpu":1,"memory":"64Mi"}}]}}}}}}"#
    )
}

/// One connection.
pub struct Submitter {
    stream: TcpStream,
    name: String,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Submitter {
    /// Connects. Workloads are called NAME-0, NAME-1 and so on.
    pub async fn connect(address: SocketAddr, name: String) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, name, request: Vec::new(), answer: Vec::new() })
    }

    /// Submits one workload of this name; returns once it was accepted.
    pub async fn submit(&mut self, name: &str) -> Result<()> {
        self.post(&workload(name)).await
    }

    /// Submits this workload; returns once it was accepted.
    pub async fn post(&mut self, body: &str) -> Result<()> {
        self.request.clear();
        self.request.extend_from_slice(
            format!(
                "POST /apis/tidewater.dev/v1/namespaces/bench/workloads HTTP/1.1\r\nhost: bench\r\n\
                 content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
            .as_bytes(),
        );
        self.stream.write_all(&self.request).await?;
        self.read_answer().await?;
        if !self.answer.starts_with(b"HTTP/1.1 201") {
            bail!("not accepted: {}", String::from_utf8_lossy(&self.answer));
        }
        Ok(())
    }

    /// Reads one whole answer: its head, and the body that the head announces.
    async fn read_answer(&mut self) -> Result<()> {
        self.answer.clear();
        let mut whole = usize::MAX;
        while self.answer.len() < whole {
            self.answer.reserve(4096);
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                bail!("the coordinator closed the connection");
            }
            if whole == usize::MAX
                && let Some(end) = self.answer.windows(4).position(|four| four == b"\r\n\r\n")
            {
                whole = end + 4 + content_length(&self.answer[..end])?;
            }
        }
        Ok(())
    }
}

fn content_length(head: &[u8]) -> Result<usize> {
    let head = std::str::from_utf8(head)?;
    let of = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    };
    head.lines().find_map(of).context("an answer without a content-length")
}

impl Client for Submitter {
    async fn put(&mut self, number: u64) -> Result<()> {
        let name = format!("{}-{number}", self.name);
        self.submit(&name).await
    }
}
