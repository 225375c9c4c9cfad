//! Why a connection was not made: whether that may pass by itself, or needs a person.

use quinn::{ConnectError, ConnectionError};

use super::Address;

/// Why a connection, or its first stream, was not made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFailed {
    /// Where the other end is is not known.
    #[error("{address}: {cause}")]
    Name {
        /// What was looked up.
        address: Address,
        /// What the system said.
        cause: std::io::Error,
    },
    /// It could not be begun.
    #[error(transparent)]
    Begin(#[from] ConnectError),
    /// It ended before it could be used.
    #[error(transparent)]
    Ended(#[from] ConnectionError),
}

impl ConnectFailed {
    /// Whether one end does not accept the other's certificate: trying again does not help until a person changes it.
    pub fn is_refused_certificate(&self) -> bool {
        let code = match self {
            Self::Ended(ConnectionError::TransportError(error)) => error.code.into(),
            Self::Ended(ConnectionError::ConnectionClosed(close)) => close.error_code.into(),
            _ => 0u64,
        };
        // QUIC carries TLS's alerts as 0x100 and the alert's number (RFC 9001, section 4.8).
        (0x100..0x200).contains(&code)
    }
}
