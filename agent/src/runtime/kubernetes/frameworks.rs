//! Which frameworks a cluster can run: those whose operator's kinds it knows.

use protocol::workload::Framework;

use super::calls::Calls;
use super::kinds::Kind;
use crate::runtime::FrameworkCheck;

/// All of them. Where the API server does not answer, it is said so.
pub(super) async fn check(calls: &Calls) -> Vec<FrameworkCheck> {
    let ray = check_kind(calls, Framework::Ray, Kind::RayJob, "KubeRay's operator").await;
    let spark = check_kind(calls, Framework::Spark, Kind::SparkApplication, "the Spark operator").await;
    vec![ray, spark, FrameworkCheck { framework: Framework::Batch, missing: None }]
}

async fn check_kind(calls: &Calls, framework: Framework, kind: Kind, operator: &str) -> FrameworkCheck {
    let version = kind.api_version();
    let client = calls.client();
    let known = calls.ask(client.list_api_group_resources(&version)).await;
    let missing = match known {
        Ok(list) if list.resources.iter().any(|resource| resource.name == kind.plural()) => None,
        Err(error) if !error.is_not_found() => Some(format!("whether it has {version} {kind} is not known: {error}")),
        _ => Some(format!("the cluster does not know {version} {kind}; install {operator}")),
    };
    FrameworkCheck { framework, missing }
}
