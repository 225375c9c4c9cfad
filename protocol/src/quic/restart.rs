//! How a listener that was killed and is back makes itself known to connections of its former life.
//!
//! What they send it meets no connection. It answers with a token that only it can know, and the other end drops the
//! connection at once instead of after the idle timeout (RFC 9000, section 10.3). So the token's key must outlive the
//! process: it is made from the private key of its certificate. And it must answer for connection ids that this life never
//! gave out, which quinn's own generator would refuse.

use std::sync::Arc;
use std::time::Duration;

use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use super::Credentials;

/// Bytes of a connection id.
const ID_BYTES: usize = 8;

/// The settings of an endpoint that listens with these credentials, the same in each of its lives.
pub fn endpoint_config(credentials: &Credentials) -> EndpointConfig {
    let key = hmac::Key::new(hmac::HMAC_SHA256, credentials.key.secret_der());
    // Not the key itself: what is made for one purpose is of no use for another.
    let reset = hmac::sign(&key, b"tidewater: stateless reset");
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, reset.as_ref())));
    config.cid_generator(|| Box::new(RandomIds(SystemRandom::new())));
    config
}

/// Random connection ids; any id may be one of an earlier life.
struct RandomIds(SystemRandom);

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_BYTES];
        self.0.fill(&mut id).expect("the system gives random bytes");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
