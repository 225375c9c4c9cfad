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
    let definitions = binaries.custom_resources(tool)?;
    let refused = |cause| StartError::CustomResources { name: component.name(), cause: Box::new(cause) };
    for definition in &definitions {
        match client.request::<Value>(post(definition)).await {
            Ok(_) => {}
            // From an earlier start in this folder.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(refused(error)),
        }
    }
    for definition in &definitions {
        let name = definition["metadata"]["name"].as_str().unwrap_or_default();
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let found = client.request::<Value>(get(name)).await.map_err(refused)?;
            let conditions = found["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
            if conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True") {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}

fn post(definition: &Value) -> Request<Vec<u8>> {
    let mut request = Request::new(definition.to_string().into_bytes());
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static(PATH);
    request.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    request
}

fn get(name: &str) -> Request<Vec<u8>> {
    let mut request = Request::new(vec![]);
    // A name from a definition has no character that a path may not have.
    *request.uri_mut() = format!("{PATH}/{name}").parse().unwrap_or_default();
    request
}
