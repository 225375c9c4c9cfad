//! Connections to the pages of attempts that coordinators ask for: so many at once and no more, each gone once either end, its attempt or
//! the link is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use protocol::control::{PageAnswer, PageRequest};
use protocol::ids::AttemptId;
use protocol::quic::{BytesBothWays, relay, write_frame};
use quinn::{Connection, RecvStream, SendStream};

use crate::runtime::any::AnyRuntime;

/// Connections to the page of one attempt: a browser has six of them.
const OF_AN_ATTEMPT: usize = 16;
/// Connections to all pages: half of the streams of one link, so that logs find one whatever pages there are.
const OF_ALL: usize = 32;
/// Characters of a reason that are told: as many fit into an answer whatever they are.
const LONGEST_REASON: usize = 900;

/// The connections that there are, over all links.
#[derive(Clone, Default)]
pub struct Pages(Arc<Mutex<BTreeMap<AttemptId, usize>>>);

/// The right to one connection, given back when it is dropped.
struct Seat {
    pages: Pages,
    attempt: AttemptId,
}

impl Pages {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<AttemptId, usize>> {
        self.0.lock().expect("no holder of this lock panics")
    }

    fn enter(&self, attempt: AttemptId) -> Result<Seat, String> {
        let mut taken = self.lock();
        let of_attempt = taken.get(&attempt).copied().unwrap_or(0);
        if of_attempt >= OF_AN_ATTEMPT {
            return Err(format!(
                "{OF_AN_ATTEMPT} connections to it are open, and no more are forwarded: close some of them"
            ));
        }
        if taken.values().sum::<usize>() >= OF_ALL {
            return Err(format!(
                "{OF_ALL} connections to pages of this cluster are open, and no more are forwarded: try again in a while"
            ));
        }
        taken.insert(attempt, of_attempt + 1);
        Ok(Seat { pages: self.clone(), attempt })
    }

    /// Answers one request, and passes bytes on until the connection is over.
    pub(super) async fn serve(
        self,
        runtime: AnyRuntime,
        connection: Connection,
        request: PageRequest,
        mut send: SendStream,
        receive: RecvStream,
    ) {
        let attempt = request.attempt;
        let opened = async {
            let seat = self.enter(attempt)?;
            let page = runtime.page(attempt).await.map_err(|error| error.to_string())?;
            Ok::<_, String>((seat, page))
        };
        let opened = tokio::select! {
            opened = opened => opened,
            // Whoever asked does not wait any more.
            _ = send.stopped() => return,
            _ = connection.closed() => return,
        };
        let (_seat, mut page) = match opened {
            Ok(opened) => opened,
            Err(reason) => {
                tracing::debug!(%attempt, reason, "no page");
                let reason = reason.chars().take(LONGEST_REASON).collect();
                if write_frame(&mut send, &PageAnswer::Refused { reason }).await.is_ok() {
                    let _ = send.finish();
                    let _ = send.stopped().await;
                }
                return;
            }
        };
        if write_frame(&mut send, &PageAnswer::Opened { token: page.token.take() }).await.is_err() {
            return;
        }
        let linger = page.linger;
        let relayed = tokio::select! {
            relayed = relay(BytesBothWays::new(send, receive), page, linger) => relayed,
            () = runtime.ended(attempt) => Err(std::io::Error::other("the attempt has ended")),
        };
        if let Err(error) = relayed {
            tracing::debug!(%attempt, %error, "a connection to a page broke off");
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.pages.lock();
        if let Some(count) = taken.get_mut(&self.attempt) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.attempt);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_bounded_for_each_attempt_and_in_all_and_are_given_back() {
        let attempt =
            |number: u32| format!("00000000-0000-0000-0000-000000000001-{number}").parse::<AttemptId>().unwrap();
        let pages = Pages::default();
        let mut first: Vec<Seat> = (0..OF_AN_ATTEMPT).map(|_| pages.enter(attempt(1)).unwrap()).collect();
        assert!(pages.enter(attempt(1)).err().unwrap().starts_with("16 connections to it"));
        let second: Vec<Seat> = (0..OF_ALL - OF_AN_ATTEMPT).map(|_| pages.enter(attempt(2)).unwrap()).collect();
        assert!(pages.enter(attempt(3)).err().unwrap().starts_with("32 connections to pages of this cluster"));
        first.pop();
        let third = pages.enter(attempt(3)).unwrap();
        drop((first, second, third));
        assert!(pages.lock().is_empty(), "nothing is kept of attempts that nobody looks at");
    }
}
