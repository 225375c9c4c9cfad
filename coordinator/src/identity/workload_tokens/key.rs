//! A private key of ECDSA over P-256, by which a replica signs.

use std::fmt;

use engine::token_keys::PublicKey;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};

use super::jwt;

/// A key with its public half and that one's name.
pub(super) struct SigningKey {
    pair: EcdsaKeyPair,
    public: PublicKey,
    kid: String,
}

impl SigningKey {
    /// A new one, and how it is written down (PKCS #8). None: the system gives no random numbers.
    pub(super) fn generate() -> Option<(Self, Vec<u8>)> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).ok()?;
        let key = Self::read(document.as_ref())?;
        Some((key, document.as_ref().to_owned()))
    }

    /// Reads one that was written down; none where it is damaged.
    pub(super) fn read(document: &[u8]) -> Option<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document, &SystemRandom::new()).ok()?;
        // Uncompressed: 4, then both coordinates.
        let (x, y) = pair.public_key().as_ref().strip_prefix(&[4])?.split_at_checked(32)?;
        let public = PublicKey { x: x.try_into().ok()?, y: y.try_into().ok()? };
        Some(Self { pair, public, kid: jwt::thumbprint(&public) })
    }

    /// The public half.
    pub(super) fn public(&self) -> PublicKey {
        self.public
    }

    /// Its name: the public half's thumbprint.
    pub(super) fn kid(&self) -> &str {
        &self.kid
    }

    /// A signature as JWTs have it: both numbers, 32 bytes each.
    pub(super) fn sign(&self, text: &[u8]) -> Option<Vec<u8>> {
        self.pair.sign(&SystemRandom::new(), text).ok().map(|signature| signature.as_ref().to_owned())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the private key {}", self.kid)
    }
}
