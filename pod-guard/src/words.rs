//! How a guard asks its agent whether to go on: a line of text over TCP, and a line back.
//!
//! ```text
//! may ATTEMPT NONCE ASKED MAC          the guard; ASKED is the moment by its own clock, in ms
//! may NONCE ASKED TTL_MS MAC           the agent: for so long from that moment
//! ```
//! Both are proved by a key that only this attempt's pods and the agent have (HMAC-SHA256): whoever else listens at the agent's address can
//! let nothing go on, and an answer is of no use to another guard or for another question. The nonce tells guards from one another. That an
//! answer never comes is what a guard is for, so nothing else is protected: the lines can be read by anybody.

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

/// The longest line, in bytes.
pub const LONGEST: usize = 256;
/// Of a key, in bytes; it is written in hexadecimal digits.
const KEY: usize = 32;

/// What an attempt's pods and the agent prove their words with.
#[derive(Clone)]
pub struct Key(hmac::Key);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// A new one, as it is written.
    pub fn new_text() -> std::io::Result<String> {
        let mut bytes = [0; KEY];
        SystemRandom::new().fill(&mut bytes).map_err(|_| std::io::Error::other("no random bytes"))?;
        Ok(hex(&bytes))
    }

    /// None where this is none.
    pub fn read(text: &str) -> Option<Self> {
        let bytes = unhex(text)?;
        (bytes.len() == KEY).then(|| Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    fn prove(&self, text: &str) -> String {
        hex(hmac::sign(&self.0, text.as_bytes()).as_ref())
    }

    fn proved(&self, text: &str, mac: &str) -> bool {
        unhex(mac).is_some_and(|mac| hmac::verify(&self.0, text.as_bytes(), &mac).is_ok())
    }
}

/// Tells this guard from others.
pub fn nonce() -> std::io::Result<String> {
    Key::new_text().map(|mut text| {
        text.truncate(16);
        text
    })
}

/// A guard's question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The attempt.
    pub attempt: String,
    /// The guard's own.
    pub nonce: String,
    /// When it is asked, by the guard's clock, in ms.
    pub asked: u64,
}

/// A line that may be a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unproved {
    question: Question,
    mac: String,
}

impl Unproved {
    /// What it says; none where it is no question.
    pub fn read(line: &str) -> Option<Self> {
        let mut words = line.trim_end().split(' ');
        let [Some("may"), Some(attempt), Some(nonce), Some(asked), Some(mac), None] = [(); 6].map(|()| words.next())
        else {
            return None;
        };
        let question = Question { attempt: attempt.to_owned(), nonce: nonce.to_owned(), asked: asked.parse().ok()? };
        Some(Self { question, mac: mac.to_owned() })
    }

    /// The attempt that it says it is of.
    pub fn attempt(&self) -> &str {
        &self.question.attempt
    }

    /// The question, if it comes from whoever has this key.
    pub fn proved_by(self, key: &Key) -> Option<Question> {
        key.proved(&self.question.proof(), &self.mac).then_some(self.question)
    }
}

impl Question {
    fn proof(&self) -> String {
        format!("guard asks {} {} {}", self.attempt, self.nonce, self.asked)
    }

    fn answer_proof(&self, ttl_ms: u64) -> String {
        format!("agent answers {} {} {} {ttl_ms}", self.attempt, self.nonce, self.asked)
    }

    /// As it is sent.
    pub fn line(&self, key: &Key) -> String {
        format!("may {} {} {} {}\n", self.attempt, self.nonce, self.asked, key.prove(&self.proof()))
    }

    /// The answer that lets the attempt go on for so long from when this was asked, as it is sent.
    pub fn answer(&self, key: &Key, ttl_ms: u64) -> String {
        format!("may {} {} {ttl_ms} {}\n", self.nonce, self.asked, key.prove(&self.answer_proof(ttl_ms)))
    }

    /// For how long the attempt may go on, by this answer; none where it is not one to this question.
    pub fn answered(&self, key: &Key, line: &str) -> Option<u64> {
        let mut words = line.trim_end().split(' ');
        let [Some("may"), Some(nonce), Some(asked), Some(ttl_ms), Some(mac), None] = [(); 6].map(|()| words.next())
        else {
            return None;
        };
        let ttl_ms: u64 = ttl_ms.parse().ok()?;
        let is_it = nonce == self.nonce && asked == self.asked.to_string();
        (is_it && key.proved(&self.answer_proof(ttl_ms), mac)).then_some(ttl_ms)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || text.len() % 2 == 1 {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn question(asked: u64) -> Question {
        Question { attempt: "01j-1".into(), nonce: nonce().unwrap(), asked }
    }

    #[test]
    fn what_is_asked_is_answered() {
        let key = Key::read(&Key::new_text().unwrap()).unwrap();
        let question = question(7_000);
        let heard = Unproved::read(&question.line(&key)).unwrap();
        assert_eq!(heard.attempt(), "01j-1");
        let heard = heard.proved_by(&key).unwrap();
        assert_eq!(heard, question);
        assert_eq!(question.answered(&key, &heard.answer(&key, 42)), Some(42));
        assert!(question.line(&key).len() < LONGEST);
    }

    #[test]
    fn what_others_say_counts_for_nothing() {
        let [key, other] = [(); 2].map(|()| Key::read(&Key::new_text().unwrap()).unwrap());
        let (asked, earlier) = (question(7_000), question(6_000));
        assert_eq!(Unproved::read(&asked.line(&other)).unwrap().proved_by(&key), None);
        assert_eq!(asked.answered(&key, &asked.answer(&other, 42)), None, "by another key");
        assert_eq!(asked.answered(&key, &earlier.answer(&key, 42)), None, "to another question");
        let twin = Question { nonce: nonce().unwrap(), ..asked.clone() };
        assert_eq!(asked.answered(&key, &twin.answer(&key, 42)), None, "to another guard");
        let more = asked.answer(&key, 42).replace(" 42 ", " 420 ");
        assert_eq!(asked.answered(&key, &more), None, "for longer than was said");
        // An answer is no question.
        assert_eq!(Unproved::read(&asked.answer(&key, 42)).and_then(|line| line.proved_by(&key)), None);
    }

    #[test]
    fn a_line_that_is_none_is_none() {
        let key = Key::read(&Key::new_text().unwrap()).unwrap();
        for line in ["", "may", "may a b c d", "may a b 1 2 3", "may  a b 1 zz", "must a b 1 00", "may a b 1 0é"] {
            assert!(Unproved::read(line).and_then(|line| line.proved_by(&key)).is_none(), "{line:?}");
            assert_eq!(question(1).answered(&key, line), None);
        }
        assert!(Key::read("00").is_none() && Key::read(&"é".repeat(32)).is_none());
    }
}
