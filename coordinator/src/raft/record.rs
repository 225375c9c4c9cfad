//! A record as it lies in the store: a CRC-32 of its key and body, then the body.
//!
//! The key is part of the checksum, so that a sound record in the wrong place is found too. redb has checksums of its own
//! for each page; these are ours for each record, they name what is damaged, and they stay when the store is another.
//! Called by `store` only.

use bincode::{Decode, Encode};
use protocol::codec::{self, CodecError, Limited};

const CHECKSUM_BYTES: usize = 4;

/// Why a record can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Too short to hold its checksum.
    #[error("{bytes} bytes are too short for a record")]
    Short {
        /// How many there are.
        bytes: usize,
    },
    /// The checksum is another.
    #[error("its checksum is {found:08x} and should be {expected:08x}")]
    Checksum {
        /// The one that is stored.
        found: u32,
        /// The one that the bytes have.
        expected: u32,
    },
    /// The body is not what it should be.
    #[error(transparent)]
    Body(#[from] CodecError),
}

fn checksum(key: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(body);
    hasher.finalize()
}

/// Puts the checksum before a body.
pub fn seal(key: &[u8], body: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(CHECKSUM_BYTES + body.len());
    record.extend_from_slice(&checksum(key, body).to_be_bytes());
    record.extend_from_slice(body);
    record
}

/// Checks a record and gives its body.
pub fn unseal<'a>(key: &[u8], record: &'a [u8]) -> Result<&'a [u8], RecordError> {
    let Some((found, body)) = record.split_first_chunk::<CHECKSUM_BYTES>() else {
        return Err(RecordError::Short { bytes: record.len() });
    };
    let (found, expected) = (u32::from_be_bytes(*found), checksum(key, body));
    if found != expected {
        return Err(RecordError::Checksum { found, expected });
    }
    Ok(body)
}

/// Encodes and seals.
pub fn write<T: Encode + Limited>(key: &[u8], value: &T) -> Result<Vec<u8>, CodecError> {
    Ok(seal(key, &codec::encode_body(value)?))
}

/// Checks and decodes.
pub fn read<T: Decode<()> + Limited>(key: &[u8], record: &[u8]) -> Result<T, RecordError> {
    Ok(codec::decode_body(unseal(key, record)?)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn any_flipped_bit_and_any_other_key_is_found() {
        let record = seal(b"key", b"some body");
        assert_eq!(unseal(b"key", &record).unwrap(), b"some body");
        for bit in 0..record.len() * 8 {
            let mut flipped = record.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(unseal(b"key", &flipped), Err(RecordError::Checksum { .. })), "bit {bit}");
        }
        assert!(matches!(unseal(b"yek", &record), Err(RecordError::Checksum { .. })));
        assert_eq!(unseal(b"key", &record[..3]), Err(RecordError::Short { bytes: 3 }));
    }
}
