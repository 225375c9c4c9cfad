//! Puts keys into etcd over gRPC, which is etcd's own way in: HTTP/2 by `h2`, and the two messages written by hand
//! (<https://etcd.io/docs/v3.4/dev-guide/api_reference_v3/>, `PutRequest`: key is field 1, value field 2).

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tokio::net::TcpStream;

use crate::load::Client;

/// A connection, which any number of clients share.
#[derive(Clone)]
pub struct Link {
    send: SendRequest<Bytes>,
    address: SocketAddr,
}

impl Link {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        let (send, connection) = h2::client::handshake(stream).await?;
        // It ends with its clients; what goes wrong, they see.
        tokio::spawn(connection);
        Ok(Self { send, address })
    }

    async fn call(&self, path: &str, message: &[u8]) -> Result<()> {
        let mut send = self.send.clone().ready().await?;
        let head = Request::post(format!("http://{}{path}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let (answer, mut body) = send.send_request(head, false)?;
        body.send_data(frame(message), true)?;
        let (head, mut data) = answer.await?.into_parts();
        while let Some(chunk) = data.data().await {
            let bytes = chunk?.len();
            data.flow_control().release_capacity(bytes)?;
        }
        let trailers = data.trailers().await?.unwrap_or_default();
        // An answer that is an error alone has its status in the head.
        let status = trailers.get("grpc-status").or_else(|| head.headers.get("grpc-status"));
        if status.is_none_or(|status| status != "0") {
            bail!("etcd said {status:?} {:?}", trailers.get("grpc-message"));
        }
        Ok(())
    }
}

/// gRPC's frame: not compressed, the length, the message.
fn frame(message: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(5 + message.len());
    frame.push(0);
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(message);
    frame.into()
}

/// A field of bytes, as protobuf writes it.
fn field(number: u8, value: &[u8], into: &mut Vec<u8>) {
    into.push(number << 3 | 2);
    let mut length = value.len();
    while length >= 0x80 {
        into.push(length as u8 | 0x80);
        length >>= 7;
    }
    into.push(length as u8);
    into.extend_from_slice(value);
}

/// One client.
pub struct Putter {
    link: Link,
    name: String,
}

impl Putter {
    /// Keys are called NAME-0, NAME-1 and so on.
    pub fn new(link: Link, name: String) -> Self {
        Self { link, name }
    }
}

impl Client for Putter {
    /// The value is what ours would have been sent.
    async fn put(&mut self, number: u64) -> Result<()> {
        let name = format!("{}-{number}", self.name);
        let mut message = Vec::with_capacity(400);
        field(1, format!("/registry/workloads/bench/{name}").as_bytes(), &mut message);
        field(2, super::tidewater::workload(&name).as_bytes(), &mut message);
        self.link.call("/etcdserverpb.KV/Put", &message).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_written_as_protobuf_has_it() {
        let mut bytes = Vec::new();
        field(2, &[7; 300], &mut bytes);
        assert_eq!(bytes[..4], [0x12, 0xac, 0x02, 7]);
        assert_eq!(bytes.len(), 303);
    }
}
