//! Tokens from a request to their text, by a core that is played: what they say, who gets none, and how keys come and go.
#![allow(clippy::unwrap_used)]

use engine::State;
use engine::commands::{Binding, Command, Expect};
use engine::reasons::Decision;
use engine::token_keys::KEY_LIFE_MS;
use protocol::control::{AttemptReport, AttemptState, ClusterInfo, GroupPlacement, NodeShare};
use protocol::ids::*;
use protocol::pool::OwnershipSpec;
use protocol::resources::Resources;
use protocol::workload::{Framework, WorkloadSpec};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::grant::judge;
use super::*;
use crate::handle::{ReplicaStatus, Request, View};

const NOW: UnixMs = UnixMs(1_750_000_000_500);
const UID: Uid = Uid(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);

fn attempt(number: u32) -> AttemptId {
    AttemptId { workload: UID, number: AttemptNumber(number) }
}

fn eu() -> ClusterName {
    ClusterName::new("eu-1").unwrap()
}

fn url() -> IssuerUrl {
    "https://tidewater.example".parse().unwrap()
}

fn ask(number: u32, audience: &str) -> TokenRequest {
    TokenRequest { attempt: attempt(number), audience: audience.into() }
}

fn apply(state: &mut State, command: Command) {
    let index = LogIndex(state.applied.0 + 1);
    state.apply(index, &command, NOW).outcome.unwrap();
}

/// A key that nobody holds, so that tokens count as issued.
fn somebody() -> PublicKey {
    PublicKey { x: [9; 32], y: [9; 32] }
}

/// Workload vision/llama-ft, whose first attempt lives in eu-1, with a token for sts and one for vault.
fn state() -> State {
    let mut state = State::default();
    let key =
        WorkloadKey { namespace: Namespace::new("vision").unwrap(), name: WorkloadName::new("llama-ft").unwrap() };
    let spec: WorkloadSpec = serde_json::from_value(json!({
        "batch": {"command": ["c"], "groups": [{"name": "w", "count": 1, "cpu": "1", "memory": "1Gi"}]},
        "tokens": [
            {"audience": "sts.amazonaws.com", "mountPath": "/run/aws"},
            {"audience": "vault", "mountPath": "/run/vault", "expiration": "10m"},
        ],
    }))
    .unwrap();
    let info = |name: ClusterName| ClusterInfo {
        name,
        region: Region::new("eu").unwrap(),
        frameworks: vec![Framework::Batch],
        fences: true,
        secrets: true,
        manifests: vec![],
        prices: vec![],
    };
    let each = Resources { cpu_milli: 1000, memory_mib: 1024, gpu_milli: 0 };
    let nodes = vec![NodeShare { node: NodeName::new("n").unwrap(), members: 1 }];
    let binding = Binding {
        key: key.clone(),
        uid: UID,
        attempt: AttemptNumber(1),
        epoch: Epoch(1),
        cluster: eu(),
        placement: vec![GroupPlacement { group: GroupName::new("w").unwrap(), each, sku: None, nodes }],
        decision: Decision::default(),
    };
    let join = |name: ClusterName| Command::Join {
        info: info(name),
        incarnation: Incarnation(1),
        last_command: CommandNumber(0),
        attempts: vec![],
    };
    apply(&mut state, Command::OpenEpoch { epoch: Epoch(1) });
    apply(&mut state, join(eu()));
    apply(&mut state, join(ClusterName::new("us-1").unwrap()));
    apply(&mut state, Command::SetTokenKey { replica: ReplicaId(9), key: Some(somebody()) });
    apply(&mut state, Command::Submit { key, uid: UID, spec: Box::new(spec) });
    apply(&mut state, Command::Bind(Box::new(binding)));
    state
}

#[test]
fn a_token_says_who_the_workload_is() {
    let grant = judge(&state(), &eu(), &ask(1, "sts.amazonaws.com")).unwrap();
    let claims = grant.claims(&url(), NOW, Uuid::from_u128(7));
    insta::assert_snapshot!(serde_json::to_string_pretty(&claims).unwrap(), @r#"
    {
      "iss": "https://tidewater.example",
      "sub": "tidewater:workload:vision:llama-ft",
      "aud": "sts.amazonaws.com",
      "iat": 1750000000,
      "nbf": 1750000000,
      "exp": 1750003600,
      "jti": "00000000-0000-0000-0000-000000000007",
      "tidewater.dev": {
        "cluster": "eu-1",
        "namespace": "vision",
        "workload": "llama-ft",
        "attempt": "01234567-89ab-cdef-0123-456789abcdef-1",
        "pool": "default"
      }
    }
    "#);
    assert_eq!(judge(&state(), &eu(), &ask(1, "vault")).unwrap().life.0, 600_000);
}

#[test]
fn an_owner_is_named_where_one_is_known() {
    let mut state = state();
    let owner = Namespace::new("vision").unwrap();
    let spec = OwnershipSpec { pool: None, parent: Some(Namespace::new("labs").unwrap()) };
    apply(&mut state, Command::SetOwnershipRule { owner: owner.clone(), spec, expect: Expect::Any });
    let grant = judge(&state, &eu(), &ask(1, "vault")).unwrap();
    assert_eq!(grant.owner, Some(owner));
    let claims = serde_json::to_value(grant.claims(&url(), NOW, Uuid::nil())).unwrap();
    assert_eq!(claims["tidewater.dev"]["owner"], "vision");
}

#[test]
fn each_reason_for_no_token_is_its_own() {
    let mut state = state();
    let said = |state: &State, cluster: &str, request: &TokenRequest| {
        judge(state, &ClusterName::new(cluster).unwrap(), request).unwrap_err().to_string()
    };
    let id = attempt(1);
    let stranger = AttemptId { workload: Uid(5), ..id };
    let of_nobody = TokenRequest { attempt: stranger, audience: "vault".into() };
    assert_eq!(said(&state, "eu-1", &of_nobody), format!("attempt {stranger} is not on record"));
    assert_eq!(said(&state, "eu-1", &ask(2, "vault")), format!("attempt {} is not on record", attempt(2)));
    let elsewhere = format!("attempt {id} is not bound to cluster us-1, whose agent asks");
    assert_eq!(said(&state, "us-1", &ask(1, "vault")), elsewhere);
    let not_named = "workload vision/llama-ft names no token for \"s3\" (spec.tokens)";
    assert_eq!(said(&state, "eu-1", &ask(1, "s3")), not_named);
    let report = AttemptReport { attempt: id, revision: 1, state: AttemptState::Succeeded, resized: None, at: NOW };
    apply(&mut state, Command::Report { cluster: eu(), report });
    assert_eq!(said(&state, "eu-1", &ask(1, "vault")), format!("attempt {id} is not alive any more"));
}

/// A core that reads and proposes on this state, at the time that it is told.
fn core(mut state: State, now: Arc<Mutex<UnixMs>>) -> Handle {
    let (handle, mut requests, _) = Handle::new();
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            let status = ReplicaStatus {
                id: ReplicaId(1),
                leader: Some(ReplicaId(1)),
                term: Epoch(1),
                applied: state.applied,
                committed: state.applied,
                voters: vec![ReplicaId(1)],
            };
            let now = *now.lock().unwrap();
            let (capacity, plan, fleet, memory) = (&Default::default(), None, None, &Default::default());
            match request {
                Request::Read { job, .. } => {
                    job(Ok(&View { state: &state, capacity, plan, memory, fleet, status: &status, now }));
                }
                Request::Propose { command, reply } => {
                    let outcome = state.apply(LogIndex(state.applied.0 + 1), &command, now).outcome;
                    reply(
                        outcome.map_err(Into::into),
                        &View { state: &state, capacity, plan, memory, fleet, status: &status, now },
                    );
                }
                _ => {}
            }
        }
    });
    handle
}

fn decoded(part: &str) -> Vec<u8> {
    const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (mut bits, mut count, mut bytes) = (0u32, 0, vec![]);
    for letter in part.chars() {
        bits = bits << 6 | LETTERS.find(letter).unwrap() as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

/// The header and the claims of a token, whose signature is good by one of these keys: the one that it names.
fn verified(token: &str, keys: &Value) -> (Value, Value) {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let header: Value = serde_json::from_slice(&decoded(header)).unwrap();
    let all = keys["keys"].as_array().unwrap();
    let key = all.iter().find(|key| key["kid"] == header["kid"]).expect("a key that is served");
    let half = |name: &str| decoded(key[name].as_str().unwrap());
    let public = [vec![4], half("x"), half("y")].concat();
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public);
    public.verify(signed.as_bytes(), &decoded(signature)).expect("a good signature");
    (header, serde_json::from_slice(&decoded(claims)).unwrap())
}

struct Scene {
    _dir: tempfile::TempDir,
    handle: Handle,
    issuer: Arc<Issuer>,
    now: Arc<Mutex<UnixMs>>,
    dir: std::path::PathBuf,
}

impl Scene {
    fn new() -> Self {
        let now = Arc::new(Mutex::new(NOW));
        let (dir, handle) = (tempfile::tempdir().unwrap(), core(state(), now.clone()));
        let issuer = Issuer::open(url(), ReplicaId(1), dir.path(), handle.clone()).unwrap();
        Self { handle, issuer, now, dir: dir.path().join("workload-keys"), _dir: dir }
    }

    async fn key_set(&self) -> Value {
        let at = *self.now.lock().unwrap();
        self.handle.read(Consistency::Stale, move |v| key_set(&v.state.token_keys, at)).await.unwrap()
    }

    /// Lets everything be done that is due for the keys.
    async fn see_to_keys(&self) {
        let stop = CancellationToken::new();
        let keeping = tokio::spawn(keep(self.issuer.clone(), stop.clone()));
        let (handle, deadline) = (self.handle.clone(), std::time::Instant::now() + Duration::from_secs(10));
        let at = self.now.lock().unwrap().0;
        let young =
            |keys: &engine::token_keys::TokenKeys| keys.of(ReplicaId(1)).is_some_and(|k| k.since.0 + KEY_LIFE_MS > at);
        while !young(&handle.read(Consistency::Stale, |v| v.state.token_keys.clone()).await.unwrap())
            || self.files() != 1
        {
            assert!(std::time::Instant::now() < deadline, "its keys are not seen to");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        stop.cancel();
        keeping.await.unwrap();
    }

    fn files(&self) -> usize {
        std::fs::read_dir(&self.dir).unwrap().count()
    }
}

fn issued(answer: TokenAnswer) -> String {
    match answer {
        TokenAnswer::Issued { token, .. } => token.reveal().to_owned(),
        TokenAnswer::Refused { reason } => panic!("{reason}"),
    }
}

#[tokio::test]
async fn a_token_is_signed_with_a_key_that_is_agreed_upon_and_with_no_other() {
    let scene = Scene::new();
    let TokenAnswer::Refused { reason } = scene.issuer.issue(&eu(), ask(1, "vault")).await else { panic!("too soon") };
    assert!(reason.starts_with("this coordinator has no key that the others agreed upon"), "{reason}");
    scene.see_to_keys().await;
    let answer = scene.issuer.issue(&eu(), ask(1, "vault")).await;
    let TokenAnswer::Issued { life_ms: 600_000, .. } = answer else { panic!("{answer:?}") };
    let token = issued(answer);
    let (header, claims) = verified(&token, &scene.key_set().await);
    assert_eq!((&header["alg"], &header["typ"]), (&json!("ES256"), &json!("JWT")));
    assert_eq!((&claims["aud"], &claims["iss"]), (&json!("vault"), &json!("https://tidewater.example")));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 600);
    let another = issued(scene.issuer.issue(&eu(), ask(1, "vault")).await);
    assert_ne!(verified(&another, &scene.key_set().await).1["jti"], claims["jti"]);
    let TokenAnswer::Refused { reason } = scene.issuer.issue(&eu(), ask(1, "s3")).await else {
        panic!("not asked for")
    };
    assert!(reason.contains("names no token for \"s3\""), "{reason}");
}

#[tokio::test]
async fn a_key_is_replaced_after_thirty_days_and_served_until_its_last_token_has_expired() {
    let scene = Scene::new();
    scene.see_to_keys().await;
    let old = issued(scene.issuer.issue(&eu(), ask(1, "vault")).await);
    scene.now.lock().unwrap().0 += KEY_LIFE_MS;
    scene.see_to_keys().await;
    let new = issued(scene.issuer.issue(&eu(), ask(1, "vault")).await);
    let keys = scene.key_set().await;
    let (before, after) = (verified(&old, &keys).0, verified(&new, &keys).0);
    assert_ne!(before["kid"], after["kid"]);
    let kids = |keys: &Value| keys["keys"].as_array().unwrap().iter().map(|k| k["kid"].clone()).collect::<Vec<_>>();
    assert!(kids(&keys).contains(&before["kid"]));
    scene.now.lock().unwrap().0 += 25 * 3_600_000;
    let later = kids(&scene.key_set().await);
    assert!(!later.contains(&before["kid"]) && later.contains(&after["kid"]));
}

#[tokio::test]
async fn a_replica_that_comes_back_signs_with_the_key_that_it_had() {
    let scene = Scene::new();
    scene.see_to_keys().await;
    let kid = |token: &str, keys: &Value| verified(token, keys).0["kid"].clone();
    let before = kid(&issued(scene.issuer.issue(&eu(), ask(1, "vault")).await), &scene.key_set().await);
    let again = Issuer::open(url(), ReplicaId(1), scene.dir.parent().unwrap(), scene.handle.clone()).unwrap();
    let after = kid(&issued(again.issue(&eu(), ask(1, "vault")).await), &scene.key_set().await);
    assert_eq!(before, after);
}

#[tokio::test]
async fn a_replica_that_has_no_issuer_any_more_says_so_once() {
    let scene = Scene::new();
    scene.see_to_keys().await;
    retire(ReplicaId(1), scene.handle.clone(), CancellationToken::new()).await;
    let keys = scene.handle.read(Consistency::Stale, |v| v.state.token_keys.clone()).await.unwrap();
    assert!(keys.of(ReplicaId(1)).is_none() && keys.of(ReplicaId(9)).is_some());
    assert_eq!(scene.key_set().await["keys"].as_array().unwrap().len(), 2, "what it signed is still valid");
    let answer = scene.issuer.issue(&eu(), ask(1, "vault")).await;
    assert!(matches!(answer, TokenAnswer::Refused { .. }), "{answer:?}");
}
