//! The public keys with which coordinator replicas sign workload tokens: who signs with which, since when, and how long it is served to
//! those who verify tokens.
//!
//! Owns the keys of the state ([`TokenKeys`]). Changed by the command `SetTokenKey` alone, which each replica sends for itself. A private key
//! never leaves its replica. A replica signs only with a key that is agreed upon, so that every replica serves it before anybody meets it, and
//! a key is served until the last token that was signed with it has expired.

use bincode::{Decode, Encode};
use protocol::ids::{ReplicaId, UnixMs};
use protocol::workload::MAX_TOKEN_LIFE;

const DAY_MS: u64 = 24 * 3_600_000;
/// How long a replica signs with one key before it makes another, in ms.
pub const KEY_LIFE_MS: u64 = 30 * DAY_MS;
/// How much longer it may sign with it while the next one is not agreed upon, in ms.
pub const KEY_GRACE_MS: u64 = DAY_MS;
/// How long a key is served after its last token, in ms: as long as that may be valid, and an hour for clocks that differ.
pub const SERVED_MS: u64 = MAX_TOKEN_LIFE.0 + 3_600_000;
/// The most keys. A replica has one, and those before it for a day: only a fault makes as many.
pub const MOST: usize = 64;

/// A public key of ECDSA over P-256: the coordinates of its point, big endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct PublicKey {
    /// The first.
    pub x: [u8; 32],
    /// The second.
    pub y: [u8; 32],
}

/// The key of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TokenKey {
    /// Who signs with it.
    pub replica: ReplicaId,
    /// Its public half.
    pub key: PublicKey,
    /// Since when.
    pub since: UnixMs,
    /// When it was replaced, or its replica stopped to issue tokens; none: it is in use.
    pub until: Option<UnixMs>,
}

impl TokenKey {
    /// When it signs no more, whatever happens.
    fn last(&self) -> UnixMs {
        let at_most = UnixMs(self.since.0.saturating_add(KEY_LIFE_MS + KEY_GRACE_MS));
        self.until.map_or(at_most, |until| until.min(at_most))
    }

    /// Whether its replica may sign with it now.
    pub fn signs(&self, now: UnixMs) -> bool {
        self.until.is_none() && now < self.last()
    }

    /// Whether a token that was signed with it may be valid now.
    pub fn is_served(&self, now: UnixMs) -> bool {
        now.0 < self.last().0.saturating_add(SERVED_MS)
    }
}

/// All keys, in the order in which they came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct TokenKeys(Vec<TokenKey>);

impl TokenKeys {
    /// Those by which a token may be verified now.
    pub fn served(&self, now: UnixMs) -> impl Iterator<Item = &TokenKey> {
        self.0.iter().filter(move |key| key.is_served(now))
    }

    /// The key that a replica has in use, also where it is too old to sign with.
    pub fn of(&self, replica: ReplicaId) -> Option<&TokenKey> {
        self.0.iter().find(|key| key.replica == replica && key.until.is_none())
    }

    /// Whether it ever was agreed upon, as far as is remembered.
    pub fn knows(&self, key: &PublicKey) -> bool {
        self.0.iter().any(|known| known.key == *key)
    }

    /// Whether any replica issues tokens.
    pub fn are_issued(&self, now: UnixMs) -> bool {
        self.0.iter().any(|key| key.signs(now))
    }

    /// A replica signs with this key from now on, or with none. The same again changes nothing.
    ///
    /// # Errors
    /// Why not, in one sentence: a key that signs no more never signs again.
    pub(crate) fn set(&mut self, replica: ReplicaId, key: Option<PublicKey>, now: UnixMs) -> Result<(), String> {
        let known = key.and_then(|key| self.0.iter().find(|known| known.key == key));
        match known {
            Some(known) if known.replica != replica => return Err("it is another replica's".into()),
            Some(TokenKey { until: Some(_), .. }) => return Err("it was replaced: make another".into()),
            Some(_) => return Ok(()),
            None => {}
        }
        self.0.retain(|known| known.is_served(now));
        if key.is_some() && self.0.len() >= MOST {
            return Err(format!("there are {MOST} already, as many as are kept: they go a day after their last token"));
        }
        if let Some(before) = self.0.iter_mut().find(|known| known.replica == replica && known.until.is_none()) {
            before.until = Some(now);
        }
        self.0.extend(key.map(|key| TokenKey { replica, key, since: now, until: None }));
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ONE: ReplicaId = ReplicaId(1);
    const TWO: ReplicaId = ReplicaId(2);

    fn key(n: u8) -> PublicKey {
        PublicKey { x: [n; 32], y: [n; 32] }
    }

    fn served(keys: &TokenKeys, now: u64) -> Vec<u8> {
        keys.served(UnixMs(now)).map(|served| served.key.x[0]).collect()
    }

    #[test]
    fn a_replaced_key_is_served_until_its_last_token_has_expired() {
        let mut keys = TokenKeys::default();
        keys.set(ONE, Some(key(1)), UnixMs(0)).unwrap();
        keys.set(TWO, Some(key(2)), UnixMs(10)).unwrap();
        keys.set(ONE, Some(key(1)), UnixMs(20)).unwrap();
        assert_eq!(keys.of(ONE).unwrap().since, UnixMs(0), "the same again changes nothing");
        keys.set(ONE, Some(key(3)), UnixMs(KEY_LIFE_MS)).unwrap();
        assert_eq!(keys.of(ONE).unwrap().key, key(3));
        assert_eq!(served(&keys, KEY_LIFE_MS + SERVED_MS - 1), [1, 2, 3]);
        assert_eq!(served(&keys, KEY_LIFE_MS + SERVED_MS), [2, 3]);
        assert!(keys.knows(&key(1)));
        keys.set(ONE, Some(key(4)), UnixMs(KEY_LIFE_MS + SERVED_MS)).unwrap();
        assert!(!keys.knows(&key(1)), "what is not served any more is not kept for ever");
    }

    #[test]
    fn a_key_that_nobody_replaces_signs_for_a_day_longer_and_no_more() {
        let mut keys = TokenKeys::default();
        assert!(!keys.are_issued(UnixMs(0)));
        keys.set(ONE, Some(key(1)), UnixMs(5)).unwrap();
        let last = 5 + KEY_LIFE_MS + KEY_GRACE_MS;
        assert!(keys.are_issued(UnixMs(last - 1)) && !keys.are_issued(UnixMs(last)));
        assert_eq!(served(&keys, last + SERVED_MS - 1), [1]);
        assert_eq!(served(&keys, last + SERVED_MS), [0u8; 0]);
    }

    #[test]
    fn a_key_never_signs_again_and_is_nobody_elses() {
        let mut keys = TokenKeys::default();
        keys.set(ONE, Some(key(1)), UnixMs(0)).unwrap();
        assert_eq!(keys.set(TWO, Some(key(1)), UnixMs(1)), Err("it is another replica's".into()));
        keys.set(ONE, None, UnixMs(2)).unwrap();
        keys.set(ONE, None, UnixMs(3)).unwrap();
        assert!(keys.of(ONE).is_none() && !keys.are_issued(UnixMs(3)));
        assert_eq!(served(&keys, 3), [1], "what was signed before is valid");
        assert!(keys.set(ONE, Some(key(1)), UnixMs(4)).unwrap_err().contains("make another"));
    }

    #[test]
    fn there_are_never_more_than_so_many() {
        let mut keys = TokenKeys::default();
        for n in 0..MOST {
            keys.set(ReplicaId(n as u64 + 1), Some(key(n as u8)), UnixMs(0)).unwrap();
        }
        let full = keys.clone();
        assert!(keys.set(ReplicaId(99), Some(key(255)), UnixMs(1)).unwrap_err().contains("64 already"));
        assert_eq!(keys, full);
        let later = UnixMs(KEY_LIFE_MS + KEY_GRACE_MS + SERVED_MS);
        keys.set(ReplicaId(99), Some(key(255)), later).unwrap();
        assert_eq!(served(&keys, later.0), [255]);
    }
}
