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

/// Makes these custom resources, and returns once they can be found and listed.
pub(super) async fn serve(client: &Client, definitions: &[Value]) -> kube::Result<()> {
    for definition in definitions {
        match client.request::<Value>(post(definition)).await {
            Ok(_) => {}
            // From an earlier start in this folder.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error),
        }
    }
    for (path, plural) in definitions.iter().flat_map(served) {
        until_listed(client, &path, &plural).await?;
    }
    Ok(())
}

/// The condition `Established` comes before the kind can be found, and an operator that does not find its kinds ends. Once it can be found, the
/// API server still answers 429 until its cache of the kind has been filled, which the first request begins.
async fn until_listed(client: &Client, path: &str, plural: &str) -> kube::Result<()> {
    let began = Instant::now();
    loop {
        let found = async {
            let found = lists(&client.request::<Value>(get(path)).await?, plural);
            if found {
                client.request::<Value>(get(&format!("{path}/{plural}?limit=1"))).await?;
            }
            Ok(found)
        };
        match found.await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 429 | 503) => {}
            Err(error) => return Err(error),
        }
        if began.elapsed() > PATIENCE {
            let late = format!("{path}/{plural} is not served after {} s", PATIENCE.as_secs());
            return Err(kube::Error::Service(late.into()));
        }
        tokio::time::sleep(LOOK).await;
    }
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;

    use http::Response;
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    fn answer(code: u16, body: &Value) -> Response<Body> {
        let mut answer = Response::new(Body::from(body.to_string().into_bytes()));
        *answer.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
        answer
    }

    #[tokio::test]
    async fn a_kind_is_served_once_it_is_listed() -> kube::Result<()> {
        let definition = json!({"spec": {
            "group": "ray.io", "names": {"plural": "rayjobs"}, "versions": [{"name": "v1", "served": true}],
        }});
        let refusal =
            |code: u16| json!({"kind": "Status", "status": "Failure", "reason": "", "message": "", "code": code});
        let kinds = json!({"resources": [{"name": "rayjobs"}]});
        let answers = [
            (201, json!({})),
            (404, refusal(404)),
            (200, json!({"resources": []})),
            (200, kinds.clone()),
            (429, refusal(429)),
            (200, kinds.clone()),
            (404, refusal(404)),
            (200, kinds),
            (200, json!({"items": []})),
        ];
        let left = std::sync::Arc::new(Mutex::new(answers.into_iter().collect::<std::collections::VecDeque<_>>()));
        let asked = left.clone();
        let server = tower::service_fn(move |request: Request<Body>| {
            let next = asked.lock().ok().and_then(|mut left| left.pop_front());
            let next = next.unwrap_or_else(|| (500, json!(format!("{} was asked too much", request.uri()))));
            async move { Ok::<_, Infallible>(answer(next.0, &next.1)) }
        });
        serve(&Client::new(server, "default"), &[definition]).await?;
        assert_eq!(left.lock().map(|left| left.len()).ok(), Some(0));
        Ok(())
    }
}
