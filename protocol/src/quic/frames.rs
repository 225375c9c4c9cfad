//! Frames on a QUIC stream.

use bincode::{Decode, Encode};
use quinn::{ReadExactError, RecvStream, SendStream};

use crate::codec::{CodecError, HEADER_BYTES, Limited, body_length, decode_body, encode_frame};

/// Why a frame was not read or written. The stream is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The bytes are no frame.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The stream or connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
}

/// Reads the next frame; none when the other side ended the stream between two frames.
pub async fn read_frame<T: Decode<()> + Limited>(stream: &mut RecvStream) -> Result<Option<T>, FrameError> {
    let mut header = [0; HEADER_BYTES];
    match stream.read_exact(&mut header).await {
        Ok(()) => {}
        Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(e) => return Err(FrameError::Broken(e.to_string())),
    }
    let mut body = vec![0; body_length::<T>(&header)?];
    stream.read_exact(&mut body).await.map_err(|e| FrameError::Broken(e.to_string()))?;
    Ok(Some(decode_body(&body)?))
}

/// Writes one frame.
pub async fn write_frame<T: Encode + Limited>(stream: &mut SendStream, value: &T) -> Result<(), FrameError> {
    let frame = encode_frame(value)?;
    stream.write_all(&frame).await.map_err(|e| FrameError::Broken(e.to_string()))
}
