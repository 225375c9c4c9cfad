//! Who a node is that shows its pod's token: the API server is asked (TokenReview), so that a token counts only for as long as the pod that it
//! was made for is there. A node's name is the one that the API server says, never the node's own word.
//!
//! What is plainly no token for here costs the API server nothing. How many it is asked about at a time, and in a second, is bounded
//! whoever connects.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::Client;
use kube::core::Request;
use kube::core::params::PostParams;
use protocol::ids::NodeName;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};

use super::http::{json as read_json, send};

const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
/// Where the API server says on which node the pod is that a token was made for (Kubernetes 1.32 and later).
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// Reviews under way at a time.
const AT_A_TIME: usize = 16;
/// Least time between two, on average.
const EVERY: Duration = Duration::from_millis(5);
/// How many may come at once after a quiet time.
const BURST: u32 = 100;
/// How long one may wait for its turn, and how long the answer may take.
const TURN: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);

/// Whose tokens count, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeTokens {
    /// The audience that they must be made for: nobody who is shown a token for something else can use it here.
    pub audience: String,
    /// The service account of the node roles' pods, as the API server names it: `system:serviceaccount:NAMESPACE:NAME`.
    pub account: String,
}

/// A node as the API server knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reviewed {
    /// Its name.
    pub node: NodeName,
    /// When its token is over.
    pub until: Instant,
}

/// Why it is not known who a node is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReviewError {
    /// It is none of those that may come in.
    #[error("{0}")]
    Refused(String),
    /// It may be known later.
    #[error("the token can't be reviewed at the moment: {0}")]
    NotNow(String),
}

/// Asks the API server about tokens.
pub struct Reviewer {
    client: Client,
    tokens: NodeTokens,
    under_way: Semaphore,
    /// When the next may come, if it is not in the past.
    next: Mutex<Instant>,
}

impl Reviewer {
    /// One that asks through this client.
    pub fn new(client: Client, tokens: NodeTokens) -> Self {
        let now = Instant::now();
        let next = Mutex::new(now.checked_sub(EVERY * BURST).unwrap_or(now));
        Self { client, tokens, under_way: Semaphore::new(AT_A_TIME), next }
    }

    /// Who shows this token.
    pub async fn review(&self, token: &str) -> Result<Reviewed, ReviewError> {
        let until =
            claims(token).and_then(|claims| self.tokens.fit(&claims, unix_now())).map_err(ReviewError::Refused)?;
        let until = Instant::now() + until;
        self.turn().await?;
        // Never closed.
        let _turn = timeout(TURN, self.under_way.acquire()).await.map_err(|_| busy())?;
        let answer = timeout(ANSWER, self.ask(token)).await;
        let status = answer.map_err(|_| not_now(format!("no answer within {} s", ANSWER.as_secs())))??;
        let node = self.tokens.judge(&status).map_err(ReviewError::Refused)?;
        Ok(Reviewed { node, until })
    }

    /// Waits for the next place in time.
    async fn turn(&self) -> Result<(), ReviewError> {
        let now = Instant::now();
        let mut next = self.next.lock().await;
        let at = (*next).max(now.checked_sub(EVERY * BURST).unwrap_or(now));
        if at > now + TURN {
            return Err(busy());
        }
        *next = at + EVERY;
        drop(next);
        sleep_until(at).await;
        Ok(())
    }

    async fn ask(&self, token: &str) -> Result<TokenReviewStatus, ReviewError> {
        let spec =
            TokenReviewSpec { audiences: Some(vec![self.tokens.audience.clone()]), token: Some(token.to_owned()) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let body = serde_json::to_vec(&review).map_err(not_now)?;
        let request = Request::new(PATH).create(&PostParams::default(), body).map_err(not_now)?;
        let answer = send(&self.client, request).await.map_err(not_now)?;
        let review: TokenReview = read_json(answer).await.map_err(not_now)?;
        review.status.ok_or_else(|| not_now("the API server's answer has no status"))
    }
}

fn not_now(cause: impl ToString) -> ReviewError {
    ReviewError::NotNow(cause.to_string())
}

fn busy() -> ReviewError {
    not_now("too many nodes ask at the same time")
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What a token says of itself. Nothing of it counts before the API server has said that the token is genuine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Claims {
    sub: String,
    aud: Audiences,
    /// In seconds since 1970.
    exp: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Audiences {
    Many(Vec<String>),
    One(String),
}

impl Audiences {
    fn all(&self) -> &[String] {
        match self {
            Audiences::Many(all) => all,
            Audiences::One(one) => std::slice::from_ref(one),
        }
    }
}

/// Reads the middle part of a JSON Web Token (RFC 7519).
fn claims(token: &str) -> Result<Claims, String> {
    let wrong = || "what it shows is no service account token".to_owned();
    let mut parts = token.split('.');
    let (Some(_), Some(body), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(wrong());
    };
    // The alphabet of URLs, without padding.
    let mut text = body.replace('-', "+").replace('_', "/");
    text.extend(std::iter::repeat_n('=', (4 - text.len() % 4) % 4));
    let ByteString(bytes) = serde_json::from_value(json!(text)).map_err(|_| wrong())?;
    serde_json::from_slice::<Claims>(&bytes).map_err(|_| wrong())
}

impl NodeTokens {
    /// For how long a token with these claims would count.
    fn fit(&self, claims: &Claims, now: u64) -> Result<Duration, String> {
        let NodeTokens { audience, account } = self;
        if !claims.aud.all().contains(audience) {
            let others = Value::from(claims.aud.all().to_vec());
            return Err(format!("its token is for the audience {others:.200}, and must be for {audience:?}"));
        }
        if claims.sub != *account {
            return Err(format!("its token is that of {:.200}, and must be that of {account}", claims.sub));
        }
        match claims.exp.checked_sub(now) {
            Some(left) if left > 0 => Ok(Duration::from_secs(left)),
            _ => Err("its token has expired; does its kubelet renew it, and are the clocks right?".to_owned()),
        }
    }

    /// The node that the API server's answer names.
    fn judge(&self, status: &TokenReviewStatus) -> Result<NodeName, String> {
        if status.authenticated != Some(true) {
            let why = status.error.as_deref().unwrap_or("it does not say why");
            return Err(format!("the API server does not take its token: {why:.500}"));
        }
        let NodeTokens { audience, account } = self;
        if !status.audiences.iter().flatten().any(|one| one == audience) {
            return Err(format!("the API server does not say that its token is for the audience {audience:?}"));
        }
        let user = status.user.as_ref();
        let name = user.and_then(|user| user.username.as_deref()).unwrap_or_default();
        if name != account {
            return Err(format!("its token is that of {name:.200}, and must be that of {account}"));
        }
        let node = user.and_then(|user| user.extra.as_ref()?.get(NODE_NAME)).map(Vec::as_slice).unwrap_or_default();
        match node {
            [node] => NodeName::new(node.as_str()).map_err(|e| format!("the node of its token: {e}")),
            _ => {
                Err("its token names no node: it must be projected into a pod, by Kubernetes 1.32 or later".to_owned())
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn tokens() -> NodeTokens {
        NodeTokens { audience: "tidewater-agent".into(), account: "system:serviceaccount:tidewater:node".into() }
    }

    /// A token with these claims, as a kubelet would hand it on.
    pub(crate) fn token(claims: &Value) -> String {
        let encoded = serde_json::to_value(ByteString(claims.to_string().into_bytes())).unwrap();
        let text = encoded.as_str().unwrap().replace('+', "-").replace('/', "_").replace('=', "");
        format!("head.{text}.signature")
    }

    pub(crate) fn claimed(exp: u64) -> Value {
        json!({"aud": ["tidewater-agent"], "sub": "system:serviceaccount:tidewater:node", "exp": exp, "ok": "ÿÿÿ>>>"})
    }

    /// What the API server answers about a genuine token of a pod on this node.
    pub(crate) fn genuine(node: &str) -> Value {
        json!({
            "authenticated": true, "audiences": ["tidewater-agent"],
            "user": {"username": "system:serviceaccount:tidewater:node", "extra": {NODE_NAME: [node]}},
        })
    }

    fn refused(claims: Value) -> String {
        tokens().fit(&super::claims(&token(&claims)).unwrap(), 1_000).unwrap_err()
    }

    #[test]
    fn a_token_is_asked_about_only_if_it_is_one_of_a_node_for_here_and_its_time_is_not_over() {
        let read = claims(&token(&claimed(1_060))).unwrap();
        assert_eq!(tokens().fit(&read, 1_000), Ok(Duration::from_secs(60)));
        let with = |field: &str, value: Value| {
            let mut claims = claimed(1_060);
            claims[field] = value;
            claims
        };
        // One audience may stand there without a list.
        assert!(tokens().fit(&claims(&token(&with("aud", "tidewater-agent".into()))).unwrap(), 1_000).is_ok());
        assert!(
            refused(with("aud", json!(["https://kubernetes.default.svc"]))).contains("https://kubernetes.default.svc")
        );
        assert!(refused(with("sub", "system:serviceaccount:tidewater:agent".into())).contains("tidewater:agent,"));
        assert!(refused(with("exp", 1_000.into())).contains("expired"));
        for wrong in ["", "a", "a.b", "a.b.c", "a.e30.c", "a.e30.c.d", "é.é.é"] {
            assert!(claims(wrong).unwrap_err().contains("no service account token"), "{wrong}");
        }
    }

    #[test]
    fn a_node_is_who_the_api_server_says_and_nobody_where_it_says_less() {
        let judge = |status: Value| tokens().judge(&serde_json::from_value(status).unwrap());
        assert_eq!(judge(genuine("gpu-1")), Ok(NodeName::new("gpu-1").unwrap()));
        let without = |change: &dyn Fn(&mut Value)| {
            let mut status = genuine("gpu-1");
            change(&mut status);
            judge(status).unwrap_err()
        };
        assert!(without(&|s| s["authenticated"] = false.into()).contains("does not take its token"));
        let revoked = &|s: &mut Value| *s = json!({"error": "pod not found"});
        assert!(without(revoked).contains("pod not found"));
        assert!(without(&|s| s["audiences"] = json!(["other"])).contains("audience"));
        assert!(without(&|s| s["audiences"] = Value::Null).contains("audience"));
        assert!(without(&|s| s["user"]["username"] = "admin".into()).contains("that of admin"));
        assert!(without(&|s| s["user"]["extra"] = Value::Null).contains("1.32"));
        assert!(without(&|s| s["user"]["extra"][NODE_NAME] = json!(["a", "b"])).contains("names no node"));
        assert!(without(&|s| s["user"]["extra"][NODE_NAME] = json!(["UPPER"])).contains("UPPER"));
    }

    #[tokio::test]
    async fn reviews_come_no_faster_than_they_may_and_those_that_would_wait_for_long_are_sent_away() {
        let client = Client::new(
            tower::service_fn(|_: http::Request<kube::client::Body>| async {
                Ok::<_, std::io::Error>(http::Response::new(kube::client::Body::empty()))
            }),
            "default",
        );
        let reviewer = Reviewer::new(client, tokens());
        let began = Instant::now();
        for _ in 0..BURST {
            reviewer.turn().await.unwrap();
        }
        assert!(began.elapsed() < EVERY * BURST);
        for _ in 0..200 {
            reviewer.turn().await.unwrap();
        }
        assert!(began.elapsed() >= EVERY * 199, "{:?}", began.elapsed());
        *reviewer.next.lock().await = Instant::now() + TURN + EVERY;
        assert_eq!(reviewer.turn().await, Err(busy()));
    }
}
