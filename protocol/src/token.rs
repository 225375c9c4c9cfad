//! How an agent asks for a workload's token: on a stream of its own that the agent opens on its link, with one frame each way.

use std::fmt;

use bincode::{Decode, Encode};

use crate::ids::AttemptId;

/// Asks for a token of an attempt for one of the audiences that its specification names. Who asks is the certificate's to say.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TokenRequest {
    /// The attempt.
    pub attempt: AttemptId,
    /// Whom the token is for.
    pub audience: String,
}

/// What comes of a [`TokenRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum TokenAnswer {
    /// A token.
    Issued {
        /// Its text.
        token: TokenText,
        /// How long it is valid, in ms, from when it was asked for.
        life_ms: u64,
    },
    /// There is none now.
    Refused {
        /// Why, in one sentence.
        reason: String,
    },
}

/// The text of a token. Whoever has it is the workload to others until it expires, so that it is never shown.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct TokenText(String);

impl TokenText {
    /// Takes a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, to be written where the workload reads it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a token of {} bytes", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_shown_by_accident() {
        let answer = TokenAnswer::Issued { token: TokenText::new("head.body.signature"), life_ms: 1 };
        assert_eq!(format!("{answer:?}"), "Issued { token: a token of 19 bytes, life_ms: 1 }");
    }
}
