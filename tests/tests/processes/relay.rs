//! A way between an agent and a coordinator that can be cut: every datagram passes through it, or none does. Both ends live on and see nobody
//! but silence, as where a network breaks.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often it is looked whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// The way. It ends as it is dropped.
pub struct Relay {
    port: u16,
    state: Arc<State>,
    threads: Vec<JoinHandle<()>>,
}

struct State {
    cut: AtomicBool,
    over: AtomicBool,
    /// Who came last: one agent has one socket.
    visitor: Mutex<Option<SocketAddr>>,
}

impl Relay {
    /// To whoever listens on this port of loopback.
    pub fn to(port: u16) -> io::Result<Self> {
        let (front, back) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
        back.connect(("127.0.0.1", port))?;
        for socket in [&front, &back] {
            socket.set_read_timeout(Some(LOOK))?;
        }
        let own = front.local_addr()?.port();
        let state =
            Arc::new(State { cut: AtomicBool::new(false), over: AtomicBool::new(false), visitor: Mutex::default() });
        let (front, back) = (Arc::new(front), Arc::new(back));
        let forth = {
            let (state, front, back) = (state.clone(), front.clone(), back.clone());
            move || {
                let mut datagram = vec![0; 65_536];
                while !state.over.load(Ordering::Relaxed) {
                    // A timeout, or that nobody listens now: both pass.
                    let Ok((length, from)) = front.recv_from(&mut datagram) else { continue };
                    *state.visitor.lock().expect("no holder panics") = Some(from);
                    if !state.cut.load(Ordering::Relaxed) {
                        let _ = back.send(&datagram[..length]);
                    }
                }
            }
        };
        let returning = {
            let state = state.clone();
            move || {
                let mut datagram = vec![0; 65_536];
                while !state.over.load(Ordering::Relaxed) {
                    let Ok(length) = back.recv(&mut datagram) else { continue };
                    let visitor = *state.visitor.lock().expect("no holder panics");
                    if let Some(to) = visitor.filter(|_| !state.cut.load(Ordering::Relaxed)) {
                        let _ = front.send_to(&datagram[..length], to);
                    }
                }
            }
        };
        let threads = vec![std::thread::spawn(forth), std::thread::spawn(returning)];
        Ok(Self { port: own, state, threads })
    }

    /// Where the agent finds it, on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether nothing passes.
    pub fn cut(&self, cut: bool) {
        self.state.cut.store(cut, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
