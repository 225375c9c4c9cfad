//! Free ports on loopback for programs that must be told theirs before they listen.
//!
//! Between finding and using one, another program may take it: so each is given out once in a while by this process, and
//! they lie below the range from which the system takes ports by itself.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below Linux's range of ephemeral ports (32768 and up), above the well-known services.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// `N` ports that nothing listens on, none of them given out by this process lately.
pub(super) fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    let mut found = [0; N];
    for slot in &mut found {
        *slot = free_port()?;
    }
    Ok(found)
}

fn free_port() -> io::Result<u16> {
    // Processes start at different places, so that two of them seldom look at one port at a time.
    let start = std::process::id().wrapping_mul(7919);
    let mut last = io::Error::other("every port was tried");
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = (FIRST + start.wrapping_add(step) % COUNT) as u16;
        match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
            Ok(_) => return Ok(port),
            Err(e) => last = e,
        }
    }
    Err(last)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn ports_are_not_given_out_twice_and_a_busy_one_not_at_all() {
        let busy: Vec<u16> = free_ports::<4>().unwrap().into();
        let _held: Vec<TcpListener> =
            busy.iter().map(|p| TcpListener::bind((Ipv4Addr::LOCALHOST, *p)).unwrap()).collect();
        let mut seen: BTreeSet<u16> = busy.into_iter().collect();
        for _ in 0..50 {
            assert!(free_ports::<4>().unwrap().into_iter().all(|port| seen.insert(port)));
        }
    }
}
