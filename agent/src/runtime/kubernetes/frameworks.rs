//! Which frameworks a cluster can run: Ray where its operator's kinds are known; Spark with its operator or without.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use protocol::control::AttemptState;
use protocol::workload::Framework;
use tokio::time::Instant;

use super::attempt::{Refusal, SOON, Task};
use super::calls::{CallError, Calls};
use super::failure::infrastructure;
use super::kinds::Kind;
use super::manifests::SparkBy;
use crate::kube::Backoff;
use crate::runtime::FrameworkCheck;

/// What a Spark driver does in its namespace, and can't do without: verbs and resources.
const DRIVERS_DO: [(&str, &str); 5] =
    [("create", "pods"), ("delete", "pods"), ("get", "pods"), ("list", "pods"), ("watch", "pods")];

/// All of them. Where the API server does not answer, it is said so.
pub(super) async fn check(calls: &Calls) -> Vec<FrameworkCheck> {
    let kind = Kind::RayJob;
    let version = kind.api_version();
    let missing = match knows(calls, kind).await {
        Ok(true) => None,
        Ok(false) => Some(format!("the cluster does not know {version} {kind}; install KubeRay's operator")),
        Err(error) => Some(format!("whether it has {version} {kind} is not known: {error}")),
    };
    let ray = FrameworkCheck { framework: Framework::Ray, takes_manifests: missing.is_none(), missing };
    // Without the operator nobody else would read its objects.
    let takes_manifests = knows(calls, Kind::SparkApplication).await.unwrap_or(false);
    // Whether Spark's drivers may make executors is a question of each namespace.
    let spark = FrameworkCheck { framework: Framework::Spark, missing: None, takes_manifests };
    vec![ray, spark, FrameworkCheck { framework: Framework::Batch, missing: None, takes_manifests: true }]
}

async fn knows(calls: &Calls, kind: Kind) -> Result<bool, CallError> {
    let version = kind.api_version();
    let client = calls.client();
    match calls.ask(client.list_api_group_resources(&version)).await {
        Ok(list) => Ok(list.resources.iter().any(|resource| resource.name == kind.plural())),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Who submits Spark applications here, as things are now.
pub(super) async fn spark_by(task: &Task) -> Result<SparkBy, AttemptState> {
    let calls = &task.inner.calls;
    let what = format!("whether the cluster has {}", Kind::SparkApplication);
    match task.insist(&what, || knows(calls, Kind::SparkApplication)).await {
        Ok(true) => Ok(SparkBy::Operator),
        Ok(false) | Err(Refusal::Taken) => Ok(SparkBy::Agent),
        Err(Refusal::Ends(state)) => Err(state),
    }
}

/// Sees that Spark's driver may make its executors in this namespace. Without that right it would end with an exception in its own log.
pub(super) async fn drivers_may(task: &Task, namespace: &str, account: &str) -> Result<(), AttemptState> {
    let calls = &task.inner.calls;
    let reviews: Api<SubjectAccessReview> = Api::all(calls.client());
    let parameters = PostParams::default();
    let (began, mut backoff) = (Instant::now(), Backoff::new());
    loop {
        let mut may_not = None;
        for (verb, resource) in DRIVERS_DO {
            let review = review(account, namespace, verb, resource);
            let what = format!("a look at what service account {account} may do in namespace {namespace}");
            let answer = match task.insist(&what, || calls.ask(reviews.create(&parameters, &review))).await {
                Ok(answer) => answer,
                Err(Refusal::Ends(state)) => return Err(state),
                Err(Refusal::Taken) => return Err(infrastructure(format!("{what}: the answer makes no sense"))),
            };
            if !answer.status.is_some_and(|status| status.allowed) {
                may_not = Some(format!("{verb} {resource}"));
                break;
            }
        }
        let Some(right) = may_not else { return Ok(()) };
        let lack = format!(
            "service account {account} may not {right} in namespace {namespace}, and Spark's driver makes its executors with its \
             rights; make it and bind it there to a role such as `edit`, or name another in the agent's settings"
        );
        // A role that was bound just now is not known everywhere at once.
        if began.elapsed() > SOON {
            return Err(infrastructure(lack));
        }
        task.wait_for(lack).await;
        backoff.wait().await;
    }
}

fn review(account: &str, namespace: &str, verb: &str, resource: &str) -> SubjectAccessReview {
    let attributes = ResourceAttributes {
        namespace: Some(namespace.to_owned()),
        verb: Some(verb.to_owned()),
        resource: Some(resource.to_owned()),
        ..ResourceAttributes::default()
    };
    // As Kubernetes names it when it comes with its token.
    let all = "system:serviceaccounts";
    let groups = vec![all.to_owned(), format!("{all}:{namespace}"), "system:authenticated".to_owned()];
    let spec = SubjectAccessReviewSpec {
        user: Some(format!("system:serviceaccount:{namespace}:{account}")),
        groups: Some(groups),
        resource_attributes: Some(attributes),
        ..SubjectAccessReviewSpec::default()
    };
    SubjectAccessReview { spec, ..SubjectAccessReview::default() }
}
