//! The bytes of one connection on a QUIC stream: what comes after the frames that opened it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use quinn::{RecvStream, SendStream, VarInt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Reset and stop code of a stream whose connection broke off, or whose other end nobody listens to any more.
const BROKEN_OFF: VarInt = VarInt::from_u32(1);

/// Both ways of a stream. Its end is told by a shutdown alone: dropped before, it breaks off, so that nobody takes a part for the whole.
pub struct BytesBothWays {
    send: SendStream,
    receive: RecvStream,
    ended: bool,
}

impl BytesBothWays {
    /// From here on the stream is a connection's.
    pub fn new(send: SendStream, receive: RecvStream) -> Self {
        Self { send, receive, ended: false }
    }

    /// The way that is received, for a frame that comes before the connection's bytes.
    pub fn received(&mut self) -> &mut RecvStream {
        &mut self.receive
    }
}

impl AsyncRead for BytesBothWays {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.receive).poll_read(cx, buf)
    }
}

impl AsyncWrite for BytesBothWays {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ended = true;
        AsyncWrite::poll_shutdown(Pin::new(&mut self.send), cx)
    }
}

impl Drop for BytesBothWays {
    fn drop(&mut self) {
        if !self.ended {
            // Where the connection is gone there is nobody to tell. The way that is received stops by itself.
            let _ = self.send.reset(BROKEN_OFF);
        }
    }
}
