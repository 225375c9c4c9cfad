//! The issuer of workload tokens over HTTP: who it is, its keys, and what is said where there is none.

#![allow(clippy::unwrap_used)]

mod api_core;

use api_core::http::serve;
use api_core::{Core, batch};
use coordinator::api::Settings;
use engine::commands::Command;
use engine::token_keys::PublicKey;
use protocol::ids::ReplicaId;
use serde_json::json;

const CONFIGURATION: &str = "/.well-known/openid-configuration";
const KEYS: &str = "/openid/v1/jwks";

fn issuing() -> Settings {
    Settings { issuer: Some("https://tidewater.example/a".parse().unwrap()), ..Settings::default() }
}

fn asks_for_a_token(name: &str) -> String {
    batch(name, 1, 0).replace("spec:\n", "spec:\n  tokens: [{audience: vault, mountPath: /run/vault}]\n")
}

#[tokio::test]
async fn an_issuer_says_who_it_is_and_where_its_keys_are() {
    let core = Core::start();
    let api = serve(&core, issuing()).await;
    let about = api.get(CONFIGURATION).await;
    assert_eq!((about.code, &about.json()["issuer"]), (200, &json!("https://tidewater.example/a")));
    assert_eq!(about.json()["jwks_uri"], "https://tidewater.example/a/openid/v1/jwks");
    assert_eq!(about.json()["id_token_signing_alg_values_supported"], json!(["ES256"]));
    assert!(about.headers.contains(&("cache-control".into(), "public, max-age=300".into())), "{:?}", about.headers);

    assert_eq!(api.get(KEYS).await.json(), json!({"keys": []}));
    let key = PublicKey { x: [0; 32], y: [255; 32] };
    core.handle.propose(Command::SetTokenKey { replica: ReplicaId(1), key: Some(key) }).await.unwrap();
    let served = api.get(KEYS).await.json();
    let [key] = &served["keys"].as_array().unwrap()[..] else { panic!("{served}") };
    assert_eq!(
        (&key["kty"], &key["crv"], &key["use"], &key["alg"]),
        (&json!("EC"), &json!("P-256"), &json!("sig"), &json!("ES256"))
    );
    // 256 bits are 43 letters, the last of which has four to spare.
    assert_eq!((&key["x"], &key["y"]), (&json!("A".repeat(43)), &json!(format!("{}8", "_".repeat(42)))));
    assert_eq!(key["kid"].as_str().unwrap().len(), 43);
    // Also while there is no quorum: what was signed is to be verified then too.
    core.set(|s| s.no_quorum = true);
    assert_eq!(api.get(KEYS).await.json(), served);
}

#[tokio::test]
async fn without_an_issuer_whoever_asks_for_a_token_is_told_what_to_do() {
    let core = Core::start();
    let (none, some) = (serve(&core, Settings::default()).await, serve(&core, issuing()).await);
    let message = none.get(CONFIGURATION).await.failure(404, "NotFound");
    assert!(message.contains("start the coordinators with --workload-issuer URL"), "{message}");
    // The keys of the others are served all the same.
    assert_eq!(none.get(KEYS).await.code, 200);

    let message = none.post_yaml(&asks_for_a_token("a")).await.failure(422, "Invalid");
    assert!(
        message.ends_with(
            "spec.tokens: this coordinator issues no workload tokens: start the coordinators with --workload-issuer URL, \
             or leave it out"
        ),
        "{message}"
    );
    assert_eq!(none.post_yaml(&batch("b", 1, 0)).await.code, 201);
    let made = some.post_yaml(&asks_for_a_token("a")).await;
    assert_eq!((made.code, &made.json()["spec"]["tokens"][0]["audience"]), (201, &json!("vault")), "{}", made.body);
}
