//! Frames: a length (u32, big endian, of what follows), a version byte, a bincode body of one known type.
//!
//! Everything that is not exactly that is refused: longer than its type may be, cut short, of another version, with bytes
//! left over. bincode is no longer maintained, so nothing outside this module calls it: a later version byte can name
//! another encoding.

mod limits;

use bincode::{Decode, Encode};

pub use limits::Limited;

/// The version that this build writes, and the only one that it reads.
pub const VERSION: u8 = 12;
/// Bytes before the body: length and version.
pub const HEADER_BYTES: usize = 5;

/// Why bytes were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The value or frame is larger than its type may be.
    #[error("{what}: {bytes} bytes are more than the limit of {limit}")]
    TooLong {
        /// The type.
        what: &'static str,
        /// How many there are.
        bytes: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Another version.
    #[error(
        "{what}: version {found} of the format is unknown here (this build speaks version {VERSION}): upgrade the older side"
    )]
    Version {
        /// The type.
        what: &'static str,
        /// The version found.
        found: u8,
    },
    /// The bytes do not make a value.
    #[error("{what}: malformed: {cause}")]
    Malformed {
        /// The type.
        what: &'static str,
        /// What the decoder said.
        cause: String,
    },
    /// The value ended before the bytes did.
    #[error("{what}: {bytes} bytes are left over after the value")]
    LeftOver {
        /// The type.
        what: &'static str,
        /// How many.
        bytes: usize,
    },
    /// The frame ends before its length says.
    #[error("{what}: cut short: {have} of {need} bytes")]
    CutShort {
        /// The type.
        what: &'static str,
        /// Bytes there are.
        have: usize,
        /// Bytes there should be.
        need: usize,
    },
}

/// Writes a body without a header, for the log and for nesting. Refuses what would not be read again.
pub fn encode_body<T: Encode + Limited>(value: &T) -> Result<Vec<u8>, CodecError> {
    let body = bincode::encode_to_vec(value, bincode::config::standard())
        .map_err(|e| CodecError::Malformed { what: T::NAME, cause: e.to_string() })?;
    if body.len() > T::LIMIT {
        return Err(CodecError::TooLong { what: T::NAME, bytes: body.len(), limit: T::LIMIT });
    }
    Ok(body)
}

/// Reads a body without a header; every byte must belong to the value.
pub fn decode_body<T: Decode<()> + Limited>(body: &[u8]) -> Result<T, CodecError> {
    if body.len() > T::LIMIT {
        return Err(CodecError::TooLong { what: T::NAME, bytes: body.len(), limit: T::LIMIT });
    }
    let (value, used) = T::decode_limited(body).map_err(|cause| CodecError::Malformed { what: T::NAME, cause })?;
    if used != body.len() {
        return Err(CodecError::LeftOver { what: T::NAME, bytes: body.len() - used });
    }
    Ok(value)
}

/// Writes a whole frame.
pub fn encode_frame<T: Encode + Limited>(value: &T) -> Result<Vec<u8>, CodecError> {
    let body = encode_body(value)?;
    let mut frame = Vec::with_capacity(HEADER_BYTES + body.len());
    let length = u32::try_from(body.len() + 1).expect("every limit is below 4 GiB");
    frame.extend_from_slice(&length.to_be_bytes());
    frame.push(VERSION);
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// Checks a frame's header and says how many body bytes follow it.
pub fn body_length<T: Limited>(header: &[u8; HEADER_BYTES]) -> Result<usize, CodecError> {
    let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let Some(body) = length.checked_sub(1) else {
        return Err(CodecError::CutShort { what: T::NAME, have: 0, need: 1 });
    };
    if header[4] != VERSION {
        return Err(CodecError::Version { what: T::NAME, found: header[4] });
    }
    if body > T::LIMIT {
        return Err(CodecError::TooLong { what: T::NAME, bytes: body, limit: T::LIMIT });
    }
    Ok(body)
}

/// Reads exactly one whole frame.
pub fn decode_frame<T: Decode<()> + Limited>(frame: &[u8]) -> Result<T, CodecError> {
    let Some((header, body)) = frame.split_first_chunk::<HEADER_BYTES>() else {
        return Err(CodecError::CutShort { what: T::NAME, have: frame.len(), need: HEADER_BYTES });
    };
    let length = body_length::<T>(header)?;
    if body.len() < length {
        return Err(CodecError::CutShort { what: T::NAME, have: body.len(), need: length });
    }
    if body.len() > length {
        return Err(CodecError::LeftOver { what: T::NAME, bytes: body.len() - length });
    }
    decode_body(body)
}
