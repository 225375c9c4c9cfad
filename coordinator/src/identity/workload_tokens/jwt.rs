//! Tokens and keys as text: JSON Web Tokens (RFC 7519) signed with ES256, key sets (RFC 7517), thumbprints of keys (RFC 7638).

use engine::token_keys::{PublicKey, TokenKeys};
use protocol::ids::UnixMs;
use ring::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::{Value, json};

use super::key::SigningKey;

/// The only algorithm.
pub(super) const ALGORITHM: &str = "ES256";

#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    typ: &'static str,
    kid: &'a str,
}

/// The token with these claims; none where the system gives no random numbers.
pub(super) fn signed(key: &SigningKey, claims: &impl Serialize) -> Option<String> {
    let header = Header { alg: ALGORITHM, typ: "JWT", kid: key.kid() };
    let part = |value: Vec<u8>| base64url(&value);
    let text = format!("{}.{}", part(serde_json::to_vec(&header).ok()?), part(serde_json::to_vec(claims).ok()?));
    let signature = key.sign(text.as_bytes())?;
    Some(format!("{text}.{}", base64url(&signature)))
}

/// A key's name: the hash of its members in the order of their names.
pub(super) fn thumbprint(key: &PublicKey) -> String {
    let (x, y) = (base64url(&key.x), base64url(&key.y));
    let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    base64url(digest(&SHA256, members.as_bytes()).as_ref())
}

/// The keys by which tokens may be verified now, of all replicas, as a JSON Web Key Set.
pub fn key_set(keys: &TokenKeys, now: UnixMs) -> Value {
    let keys = keys.served(now).map(|served| {
        let key = &served.key;
        json!({
            "kty": "EC", "crv": "P-256", "x": base64url(&key.x), "y": base64url(&key.y),
            "kid": thumbprint(key), "use": "sig", "alg": ALGORITHM,
        })
    });
    json!({"keys": keys.collect::<Vec<_>>()})
}

/// Base64 with the letters of URLs and nothing to fill it up (RFC 4648, section 5).
pub(super) fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for some in bytes.chunks(3) {
        let at = |i: usize| u32::from(some.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        // So many bytes are one letter more.
        for letter in 0..=some.len() {
            text.push(char::from(LETTERS[(bits >> (18 - 6 * letter) & 63) as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_is_as_in_the_standard() {
        let of = |text: &str| base64url(text.as_bytes());
        assert_eq!(
            ["", "f", "fo", "foo", "foob", "fooba", "foobar"].map(of),
            ["", "Zg", "Zm8", "Zm9v", "Zm9vYg", "Zm9vYmE", "Zm9vYmFy"]
        );
        assert_eq!(base64url(&[0xfb, 0xff, 0xbf]), "-_-_");
    }

    /// The key of RFC 7517's first example, with the thumbprint that another implementation gives.
    #[test]
    fn a_thumbprint_is_as_others_have_it() {
        let x = b"\x30\xa0\x42\x4c\xd2\x1c\x29\x44\x83\x8a\x2d\x75\xc9\x2b\x37\xe7\x6e\xa2\x0d\x9f\x00\x89\x3a\x3b\x4e\xee\x8a\x3c\x0a\xaf\xec\x3e";
        let y = b"\xe0\x4b\x65\xe9\x24\x56\xd9\x88\x8b\x52\xb3\x79\xbd\xfb\xd5\x1e\xe8\x69\xef\x1f\x0f\xc6\x5b\x66\x59\x69\x5b\x6c\xce\x08\x17\x23";
        let key = PublicKey { x: *x, y: *y };
        assert_eq!(base64url(&key.x), "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4");
        assert_eq!(base64url(&key.y), "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM");
        assert_eq!(thumbprint(&key), "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s");
    }
}
