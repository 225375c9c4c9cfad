//! How a request can end badly, told apart by what a person does next.

use protocol::api::Status;

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server's address is no address.
    #[error("{url:?} is no server's address: {problem} (write it like http://127.0.0.1:7700)")]
    BadServer {
        /// The text that was given.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// No answer came, however often it was tried.
    #[error("can't reach the server at {server}: {cause} (is it running? `tidewater dev` starts one)")]
    Unreachable {
        /// The address tried last.
        server: String,
        /// What went wrong then.
        cause: String,
    },
    /// The server said no.
    #[error("{}", .status.message)]
    Refused {
        /// The server's words.
        status: Box<Status>,
        /// Whether an earlier try of the same request may have arrived.
        again: bool,
    },
    /// An answer came that is not one of this API's.
    #[error("the server at {server} gave an answer that makes no sense here: {problem}")]
    Unintelligible {
        /// Who answered.
        server: String,
        /// What is wrong with the answer.
        problem: String,
    },
}

impl ClientError {
    /// The most telling part of a failed exchange: reqwest wraps the system's words in layers of its own.
    pub(super) fn root(error: &dyn std::error::Error) -> String {
        let mut deepest = error;
        while let Some(source) = deepest.source() {
            deepest = source;
        }
        deepest.to_string()
    }

    /// What the server said in a refusal; what it did not say is made up from the HTTP status.
    pub(super) fn refused(server: &str, code: u16, body: &[u8], again: bool) -> Self {
        let status = serde_json::from_slice::<Status>(body).unwrap_or_else(|_| {
            let text = String::from_utf8_lossy(body);
            let said: String = text.trim().chars().take(200).collect();
            let message = match (code, said.is_empty()) {
                (404, _) => {
                    format!("the server at {server} does not know this request: is it a Tidewater coordinator?")
                }
                (_, true) => format!("the server at {server} answered {code} without a word"),
                (_, false) => format!("the server at {server} answered {code}: {said}"),
            };
            // Not a Status: a 404 of this kind is no missing workload, so it gets a code of its own.
            let code = if code == 404 { 501 } else { code };
            let (api_version, kind) = ("v1".into(), "Status".into());
            Status { api_version, kind, status: "Failure".into(), message, reason: String::new(), code }
        });
        ClientError::Refused { status: Box::new(status), again }
    }
}
