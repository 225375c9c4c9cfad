//! Sending, and sending again: which outcomes are worth another try, for how long, and at which address.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::stream::ByteStream;
use super::{Client, ClientError, url};

/// How long one try may take before it counts as lost: longer than the server itself lets one take.
const ONE_TRY: Duration = Duration::from_secs(15);
/// The first pause between tries; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause between tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The addresses of a federation and which of them answered last.
#[derive(Debug, Clone)]
pub(super) struct Servers {
    urls: Arc<[Url]>,
    current: Arc<AtomicUsize>,
}

impl Servers {
    /// Reads one URL, or several with commas between them.
    pub(super) fn parse(text: &str) -> Result<Self, ClientError> {
        let urls = text.split(',').map(|one| parse(one.trim())).collect::<Result<Vec<Url>, ClientError>>()?;
        Ok(Self { urls: urls.into(), current: Arc::default() })
    }

    fn current(&self) -> &Url {
        &self.urls[self.current.load(Ordering::Relaxed) % self.urls.len()]
    }

    fn next(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }
}

fn parse(text: &str) -> Result<Url, ClientError> {
    let bad = |problem: &str| ClientError::BadServer { url: text.into(), problem: problem.into() };
    let url = Url::parse(text).map_err(|e| bad(&e.to_string()))?;
    match (url.scheme(), url.host_str()) {
        ("http", Some(_)) => Ok(url),
        ("https", _) => Err(bad("https is not supported in this version")),
        _ => Err(bad("it does not begin with http://")),
    }
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Reply {
    server: String,
    body: Vec<u8>,
    /// The server's warnings.
    pub(super) warnings: Vec<String>,
}

impl Reply {
    /// The answer as what it should be.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body)
            .map_err(|e| ClientError::Unintelligible { server: self.server.clone(), problem: e.to_string() })
    }
}

/// How one try ended.
enum Try<T> {
    Answered(T),
    /// Trying again may help.
    Lost {
        error: ClientError,
        pause: Option<Duration>,
        /// Whether the request may have been carried out all the same.
        arrived: bool,
    },
}

impl<T> Try<T> {
    fn map<U>(self, of: impl FnOnce(T) -> U) -> Try<U> {
        match self {
            Try::Answered(answer) => Try::Answered(of(answer)),
            Try::Lost { error, pause, arrived } => Try::Lost { error, pause, arrived },
        }
    }
}

impl Client {
    /// Sends a request until a whole answer comes or patience ends.
    pub(super) async fn request(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&[u8]>,
    ) -> Result<Reply, ClientError> {
        self.until_answered(async |server: &Url, again: bool| {
            let mut request = self.http.request(method.clone(), url(server, path)).query(query).timeout(ONE_TRY);
            if let Some(body) = body {
                request = request.header("content-type", "application/json").body(body.to_vec());
            }
            let answer = match request.send().await {
                Ok(answer) => answer,
                Err(e) => return Ok(lost(server, &e)),
            };
            let (code, warnings) = (answer.status(), warnings(&answer));
            let pause = retry_after(&answer);
            let body = match answer.bytes().await {
                Ok(body) => body.to_vec(),
                Err(e) => return Ok(lost(server, &e)),
            };
            judge(server, code, again, &body)?;
            if is_transient(code) {
                let error = ClientError::refused(server.as_str(), code.as_u16(), &body, again);
                return Ok(Try::Lost { error, pause, arrived: true });
            }
            Ok(Try::Answered(Reply { server: server.to_string(), body, warnings }))
        })
        .await
    }

    /// Opens a stream: the answer's head must come within one try's time, its body may take for ever.
    pub(super) async fn open(&self, path: &[&str], query: &[(&str, String)]) -> Result<ByteStream, ClientError> {
        self.until_answered(async |server: &Url, again: bool| {
            let opened =
                head(server, self.http.get(url(server, path)).query(query), again, |code| code.is_success()).await?;
            Ok(opened.map(|answer| ByteStream::new(server.to_string(), answer)))
        })
        .await
    }

    /// Has the connection of a request become a stream of bytes: returns the answer that says so, which must come within one try's time.
    pub(super) async fn upgrade(&self, path: &[&str], protocol: &str) -> Result<Response, ClientError> {
        self.until_answered(async |server: &Url, again: bool| {
            let request = self.http.post(url(server, path)).header("connection", "upgrade").header("upgrade", protocol);
            head(server, request, again, |code| code == StatusCode::SWITCHING_PROTOCOLS).await
        })
        .await
    }

    async fn until_answered<T>(
        &self,
        mut attempt: impl AsyncFnMut(&Url, bool) -> Result<Try<T>, ClientError>,
    ) -> Result<T, ClientError> {
        let deadline = Instant::now() + self.patience;
        let (mut backoff, mut may_have_arrived) = (FIRST_PAUSE, false);
        loop {
            let server = self.servers.current().clone();
            let (error, pause, arrived) = match attempt(&server, may_have_arrived).await? {
                Try::Answered(answer) => return Ok(answer),
                Try::Lost { error, pause, arrived } => (error, pause, arrived),
            };
            may_have_arrived |= arrived;
            let pause = pause.unwrap_or(backoff);
            if Instant::now() + pause > deadline {
                return Err(error);
            }
            self.servers.next();
            tokio::time::sleep(pause).await;
            backoff = (backoff * 2).min(LONGEST_PAUSE);
        }
    }
}

/// An answer whose head must come within one try's time, and whose body is read only where the status is not the wanted one.
async fn head(
    server: &Url,
    request: RequestBuilder,
    again: bool,
    wanted: impl Fn(StatusCode) -> bool,
) -> Result<Try<Response>, ClientError> {
    let answer = match tokio::time::timeout(ONE_TRY, request.send()).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(e)) => return Ok(lost(server, &e)),
        Err(_) => {
            let error = unreachable(server, format!("no answer within {} s", ONE_TRY.as_secs()));
            return Ok(Try::Lost { error, pause: None, arrived: true });
        }
    };
    let code = answer.status();
    if wanted(code) {
        return Ok(Try::Answered(answer));
    }
    let pause = retry_after(&answer);
    let body = tokio::time::timeout(ONE_TRY, answer.bytes()).await;
    let body = body.ok().and_then(Result::ok).unwrap_or_default();
    let error = ClientError::refused(server.as_str(), code.as_u16(), &body, again);
    match is_transient(code) {
        true => Ok(Try::Lost { error, pause, arrived: true }),
        false => Err(error),
    }
}

/// Statuses that say "not now" rather than "no".
fn is_transient(code: StatusCode) -> bool {
    matches!(code.as_u16(), 429 | 502 | 503 | 504)
}

/// An error unless the status is good or transient.
fn judge(server: &Url, code: StatusCode, again: bool, body: &[u8]) -> Result<(), ClientError> {
    if code.is_success() || is_transient(code) {
        return Ok(());
    }
    Err(ClientError::refused(server.as_str(), code.as_u16(), body, again))
}

fn unreachable(server: &Url, cause: String) -> ClientError {
    ClientError::Unreachable { server: server.to_string(), cause }
}

fn lost<T>(server: &Url, e: &reqwest::Error) -> Try<T> {
    let cause = match e.is_timeout() {
        true => "no answer came in time".to_owned(),
        false => ClientError::root(e),
    };
    Try::Lost { error: unreachable(server, cause), pause: None, arrived: !e.is_connect() }
}

/// The server's own wish where it is overloaded, in seconds, within reason. What is merely unavailable for the moment
/// (an election takes less than the second that such wishes count in) is asked again as soon as we like.
fn retry_after(answer: &Response) -> Option<Duration> {
    if answer.status() != StatusCode::TOO_MANY_REQUESTS {
        return None;
    }
    let seconds: u64 = answer.headers().get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).clamp(FIRST_PAUSE, LONGEST_PAUSE * 5))
}

/// The texts of `Warning: 299 - "text"` headers, as Kubernetes sends them.
fn warnings(answer: &Response) -> Vec<String> {
    let headers = answer.headers().get_all("warning");
    headers.iter().filter_map(|value| warning(&String::from_utf8_lossy(value.as_bytes()))).collect()
}

fn warning(header: &str) -> Option<String> {
    let quoted = header.strip_prefix("299 ")?.split_once(' ')?.1.strip_prefix('"')?;
    let (mut text, mut chars) = (String::new(), quoted.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.extend(chars.next()),
            '"' => break,
            c => text.push(c),
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_warning_header_gives_its_text() {
        assert_eq!(warning("299 - \"no cluster could hold it\"").unwrap(), "no cluster could hold it");
        assert_eq!(warning(r#"299 tw "say \"a\\b\"" "date""#).unwrap(), r#"say "a\b""#);
        assert_eq!(warning("110 - \"stale\""), None);
        assert_eq!(warning("299"), None);
    }

    #[test]
    fn only_http_addresses_are_servers() {
        assert!(parse("http://127.0.0.1:7700").is_ok());
        for (text, why) in [
            ("https://a", "https is not supported in this version"),
            ("127.0.0.1:7700", "relative URL without a base"),
            ("ftp://a", "it does not begin with http://"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert_eq!(Servers::parse("http://a, http://b").unwrap().urls.len(), 2);
    }

    #[test]
    fn a_path_is_appended_below_the_servers_own() {
        let at = |server: &str| url(&Url::parse(server).unwrap(), &["explain", "a", "b"]).to_string();
        assert_eq!(at("http://h:1"), "http://h:1/explain/a/b");
        assert_eq!(at("http://h:1/tidewater/"), "http://h:1/tidewater/explain/a/b");
    }
}
