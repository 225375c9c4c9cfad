//! What both ends of a QUIC link share: mutual TLS with one CA, the identity in a certificate, frames on streams.
//!
//! The one room of this crate that touches sockets; behind the feature `quic`. Used by coordinator and agent.

mod address;
mod connect;
mod frames;
mod identity;
mod relay;
mod restart;
mod stream;
mod tls;

pub use address::{Address, AddressError};
pub use connect::ConnectFailed;
pub use frames::{FrameError, read_frame, write_frame};
pub use identity::{Identity, IdentityError, agent_server_name, peer_identity, replica_server_name};
pub use relay::relay;
pub use restart::endpoint_config;
pub use stream::BytesBothWays;
pub use tls::{
    AGENT_ALPN, Credentials, NODE_ALPN, PEER_ALPN, TlsError, Visitors, client_config,
    client_config_without_certificate, node_server_config, read_ca, server_config, transport, welcome,
};
