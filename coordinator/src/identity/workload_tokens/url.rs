//! The issuer's name: the URL under which whoever verifies tokens finds the coordinators' keys.

use std::fmt;
use std::str::FromStr;

use axum::http::Uri;

/// The longest.
const LONGEST: usize = 255;

/// The URL that tokens name as their issuer (`iss`), without a slash at its end. Below it are `/.well-known/openid-configuration` and the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerUrl(String);

/// Why a text is no issuer's URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} can't be an issuer: {cause}; write the URL by which others reach the coordinators' API, such as https://tidewater.example.com"
)]
pub struct BadIssuer {
    text: String,
    cause: &'static str,
}

impl IssuerUrl {
    /// A place below it.
    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

impl fmt::Display for IssuerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for IssuerUrl {
    type Err = BadIssuer;

    fn from_str(text: &str) -> Result<Self, BadIssuer> {
        let bad = |cause| BadIssuer { text: text.chars().take(80).collect(), cause };
        if text.len() > LONGEST {
            return Err(bad("it is too long"));
        }
        if text.contains(['?', '#', '@']) || !text.bytes().all(|c| c.is_ascii_graphic()) {
            return Err(bad("it has a query, a fragment, a user or a character that is not plain"));
        }
        if text.ends_with('/') {
            return Err(bad("it ends with '/': issuers are compared letter by letter, so leave it out"));
        }
        let uri: Uri = text.parse().map_err(|_| bad("it is no URL"))?;
        match (uri.scheme_str(), uri.host()) {
            (_, None | Some("")) => Err(bad("it names no host")),
            (Some("https"), _) | (Some("http"), Some("localhost" | "127.0.0.1" | "[::1]")) => Ok(Self(text.to_owned())),
            _ => Err(bad("it is not https, which only a loopback address may leave out")),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn issuers_are_https_or_on_loopback_and_written_in_one_way() {
        let good =
            ["https://a.example", "https://a.example:8443/tidewater", "http://127.0.0.1:7700", "http://localhost:1"];
        for url in good {
            assert_eq!(url.parse::<IssuerUrl>().unwrap().at("/x"), format!("{url}/x"));
        }
        let bad =
            ["", "a.example", "http://a.example", "https://a.example/", "https://a.example?b", "https://a.example#b"];
        for url in bad.into_iter().chain(["https://me@a.example", "https://a b", "ftp://a.example", "https://", "/a"]) {
            let said = url.parse::<IssuerUrl>().unwrap_err().to_string();
            assert!(said.starts_with(&format!("{url:?} can't be an issuer: ")), "{said}");
            assert!(said.ends_with("such as https://tidewater.example.com"), "{said}");
        }
        assert!(format!("https://{}", "a".repeat(255)).parse::<IssuerUrl>().is_err());
    }
}
