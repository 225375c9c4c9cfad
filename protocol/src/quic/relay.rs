//! Bytes both ways between two connections: what one end says the other hears, its end too.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes that are read before they are written on, for each way: no end runs ahead of the other by more than this and what the connections
/// themselves hold.
const PIECE: usize = 16 * 1024;

/// Passes bytes on both ways until both have ended, or one broke off. Once one end has said its last, the other may go on for as long as it
/// is never silent for `linger`: it may be that nobody listens there any more, which none can see who only sends.
///
/// # Errors
/// What broke off. Both connections are dropped then, however much was on its way.
pub async fn relay<A, B>(a: A, b: B, linger: Duration) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let ((from_a, to_a), (from_b, to_b)) = (tokio::io::split(a), tokio::io::split(b));
    let passed = AtomicU64::new(0);
    let (mut there, mut back) = (pin!(one_way(from_a, to_b, &passed)), pin!(one_way(from_b, to_a, &passed)));
    tokio::select! {
        ended = &mut there => { ended?; last_words(&mut back, &passed, linger).await }
        ended = &mut back => { ended?; last_words(&mut there, &passed, linger).await }
    }
}

async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    passed: &AtomicU64,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let length = from.read(&mut piece).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&piece[..length]).await?;
        to.flush().await?;
        passed.fetch_add(1, Ordering::Relaxed);
    }
}

async fn last_words(
    way: &mut (impl Future<Output = io::Result<()>> + Unpin),
    passed: &AtomicU64,
    linger: Duration,
) -> io::Result<()> {
    loop {
        let before = passed.load(Ordering::Relaxed);
        match tokio::time::timeout(linger, &mut *way).await {
            Ok(ended) => return ended,
            Err(_) if passed.load(Ordering::Relaxed) == before => return Ok(()),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    const LINGER: Duration = Duration::from_millis(50);
    const SOON: Duration = Duration::from_secs(10);

    /// The two far ends of a relay with this much room at each, and what becomes of it.
    fn between(room: usize) -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<io::Result<()>>) {
        let ((left, a), (right, b)) = (duplex(room), duplex(room));
        (left, right, tokio::spawn(relay(a, b, LINGER)))
    }

    #[tokio::test]
    async fn each_end_hears_the_others_bytes_and_its_end_while_it_still_speaks() {
        let (mut left, mut right, relayed) = between(64);
        let question: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        let asked = question.clone();
        let asking = tokio::spawn(async move {
            left.write_all(&asked).await.unwrap();
            left.shutdown().await.unwrap();
            let mut heard = String::new();
            left.read_to_string(&mut heard).await.unwrap();
            heard
        });
        let mut heard = vec![];
        right.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, question);
        // Slower than the silence that it may keep, in pieces that are not.
        for word in ["one ", "two ", "three ", "four "] {
            tokio::time::sleep(LINGER / 2).await;
            right.write_all(word.as_bytes()).await.unwrap();
        }
        right.shutdown().await.unwrap();
        assert_eq!(tokio::time::timeout(SOON, asking).await.unwrap().unwrap(), "one two three four ");
        relayed.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_end_that_nobody_reads_is_read_no_further() {
        let (mut left, _right, relayed) = between(64);
        let flood = tokio::time::timeout(Duration::from_millis(300), left.write_all(&vec![0; 1 << 20])).await;
        assert!(flood.is_err(), "it was all taken, and is in memory");
        relayed.abort();
    }

    #[tokio::test]
    async fn one_that_has_ended_waits_for_no_silent_other() {
        let (mut left, right, relayed) = between(64);
        left.shutdown().await.unwrap();
        tokio::time::timeout(SOON, relayed).await.unwrap().unwrap().unwrap();
        drop(right);
    }

    #[tokio::test]
    async fn one_that_breaks_off_takes_the_other_with_it() {
        let (mut left, right, relayed) = between(64);
        drop(right);
        // Its end is heard first; what is written to it then has nowhere to go.
        let broken = async { while left.write_all(b"still there?").await.is_ok() {} };
        tokio::time::timeout(SOON, broken).await.unwrap();
        assert!(relayed.await.unwrap().is_err());
    }
}
