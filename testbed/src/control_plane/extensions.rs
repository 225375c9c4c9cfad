//! What an operator needs in the API server before it starts: its custom resources, taken and served.

use std::time::{Duration, Instant};

use http::Request;
use kube::Client;
use serde_json::Value;

use super::StartError;
use super::settings::Component;
use crate::build::Binaries;

const PATH: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// How long the API server may take until it serves one.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

/// Makes the custom resources of this component; does nothing for those that have none.
pub(super) async fn install(client: &Client, binaries: &Binaries, component: Component) -> Result<(), StartError> {
    let Some(tool) = component.tool() else { return Ok(()) };
    let refused = |cause| StartError::CustomResources { name: component.name(), cause: Box::new(cause) };
    serve(client, &binaries.custom_resources(tool)?).await.map_err(refused)
}

/// Makes these custom resources, and returns once they can be found.
pub(super) async fn serve(client: &Client, definitions: &[Value]) -> kube::Result<()> {
    for definition in definitions {
        match client.request::<Value>(post(definition)).await {
            Ok(_) => {}
            // From an earlier start in this folder.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error),
        }
    }
    // The condition `Established` comes before the kind can be found, and an operator that does not find its kinds ends.
    for (path, plural) in definitions.iter().flat_map(served) {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            match client.request::<Value>(get(&path)).await {
                Ok(list) if lists(&list, &plural) => break,
                Ok(_) => {}
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 503) => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}

/// Where each version of a definition's kind is listed once it is served, and as what.
fn served(definition: &Value) -> Vec<(String, String)> {
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
    let versions = spec["versions"].as_array().into_iter().flatten().filter(|version| version["served"] == true);
    versions.map(|version| (format!("/apis/{group}/{}", text(&version["name"])), plural.clone())).collect()
}

fn lists(list: &Value, plural: &str) -> bool {
    list["resources"].as_array().into_iter().flatten().any(|resource| resource["name"] == plural)
}

fn post(definition: &Value) -> Request<Vec<u8>> {
    let mut request = Request::new(definition.to_string().into_bytes());
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static(PATH);
    request.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    request
}

fn get(path: &str) -> Request<Vec<u8>> {
    let mut request = Request::new(vec![]);
    // A name from a definition has no character that a path may not have.
    *request.uri_mut() = path.parse().unwrap_or_default();
    request
}
