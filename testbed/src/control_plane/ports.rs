//! Free ports on loopback.
//!
//! They lie below the range from which the kernel gives ports to whoever connects (32768 and up unless somebody changed
//! it), so that a server that is killed and started again finds its port as it left it.

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::{Mutex, PoisonError};

const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;

/// What this process has given out. Ports of another one are seen to be taken once it listens; until then a start that
/// finds its port taken is tried again with others.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// The ports of one control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ports {
    pub etcd: u16,
    pub etcd_peer: u16,
    pub api_server: u16,
    pub controller_manager: u16,
    pub scheduler: u16,
    pub kwok: u16,
    pub core_dns: u16,
    pub kuberay: u16,
    pub spark_operator: u16,
}

impl Ports {
    /// As many that nobody listens on.
    pub(super) fn free() -> io::Result<Self> {
        Ok(Self {
            etcd: free_port()?,
            etcd_peer: free_port()?,
            api_server: free_port()?,
            controller_manager: free_port()?,
            scheduler: free_port()?,
            kwok: free_port()?,
            core_dns: free_port()?,
            kuberay: free_port()?,
            spark_operator: free_port()?,
        })
    }
}

/// A port of loopback on which nobody listens by TCP or UDP, and that this process has not given out before.
pub fn free_port() -> io::Result<u16> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    // Processes begin at different places, so that they seldom try the same.
    let span = LAST - FIRST;
    let begin = uuid::Uuid::new_v4().as_u128() % u128::from(span);
    for step in 0..span {
        let port = FIRST + ((begin + u128::from(step)) % u128::from(span)) as u16;
        let address = (Ipv4Addr::LOCALHOST, port);
        if !given.contains(&port) && TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            given.insert(port);
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrNotAvailable, format!("no free port between {FIRST} and {LAST}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let many: Vec<Ports> = (0..20).map(|_| Ports::free().expect("there are thousands")).collect();
        let all: BTreeSet<u16> = many
            .iter()
            .flat_map(|p| {
                let Ports { etcd, etcd_peer, api_server, controller_manager, scheduler, kwok, .. } = *p;
                [
                    etcd,
                    etcd_peer,
                    api_server,
                    controller_manager,
                    scheduler,
                    kwok,
                    p.core_dns,
                    p.kuberay,
                    p.spark_operator,
                ]
            })
            .collect();
        assert_eq!(all.len(), 180);
    }
}
