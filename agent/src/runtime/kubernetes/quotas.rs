//! Whether a namespace's quota leaves no room for one more of a group's pods. Asked where a Spark driver makes its executors itself: that it is refused
//! stands in its own log alone.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceQuota;
use kube::Api;
use kube::api::ListParams;
use protocol::errors::FailureClass;
use protocol::kubernetes::{Quantity, Round};
use serde_json::Value;

use super::attempt::Task;
use super::manifests::{GROUP, Manifests};

/// Why this group gets no more pods, in the API server's own words for it; none where quotas can't be read.
pub(super) async fn refuses(task: &Task, manifests: &Manifests, group: &str) -> Option<(FailureClass, String)> {
    let pod = manifests.samples.iter().find(|pod| pod.object["metadata"]["labels"][GROUP] == group)?;
    let calls = &task.inner.calls;
    let quotas: Api<ResourceQuota> = Api::namespaced(calls.client(), &manifests.namespace);
    let all = calls.ask(quotas.list(&ListParams::default())).await.ok()?;
    let takes = takes(&pod.object["spec"]);
    all.items.iter().find_map(|quota| exceeded(quota, &takes)).map(|said| (FailureClass::Capacity, said))
}

/// What a pod counts in a quota, by the names that quotas have for it, in thousandths, of memory in MiB.
type Amounts = BTreeMap<String, u64>;

fn takes(pod: &Value) -> Amounts {
    let mut all = Amounts::from([("pods".to_owned(), 1_000), ("count/pods".to_owned(), 1_000)]);
    for container in pod["containers"].as_array().into_iter().flatten() {
        for kind in ["requests", "limits"] {
            for (name, amount) in container["resources"][kind].as_object().into_iter().flatten() {
                let Ok(Some(quantity)) = Quantity::of_json(Some(amount)) else { continue };
                let Some(units) = units(name, quantity, Round::Down) else { continue };
                let mut add = |name: String| *all.entry(name).or_default() += units;
                add(format!("{kind}.{name}"));
                // What is asked for has a shorter name too.
                if kind == "requests" {
                    add(name.clone());
                }
            }
        }
    }
    all
}

fn units(name: &str, quantity: Quantity, round: Round) -> Option<u64> {
    let units = if name.ends_with("memory") { quantity.mib(round) } else { quantity.milli(round) };
    units.ok()
}

/// Where one more such pod is surely beyond a quota: what is rounded is rounded in the pod's favour. A quota for some pods only is left out,
/// for whether this is one of them is not looked at.
fn exceeded(quota: &ResourceQuota, takes: &Amounts) -> Option<String> {
    let (spec, status) = (quota.spec.as_ref()?, quota.status.as_ref()?);
    if spec.scopes.as_ref().is_some_and(|scopes| !scopes.is_empty()) || spec.scope_selector.is_some() {
        return None;
    }
    let (hard, used) = (status.hard.as_ref()?, status.used.as_ref()?);
    let beyond = hard.iter().find(|(name, most)| {
        let read = |text: &str, round| units(name, text.parse().ok()?, round);
        let found = || {
            let used = read(&used.get(*name)?.0, Round::Down)?;
            Some(used.saturating_add(*takes.get(*name)?) > read(&most.0, Round::Up)?)
        };
        found().unwrap_or(false)
    });
    let (name, most) = beyond?;
    let used = used.get(name).map_or("", |used| used.0.as_str());
    let quota = quota.metadata.name.as_deref().unwrap_or_default();
    Some(format!("exceeded quota: {quota}, used: {name}={used}, limited: {name}={}", most.0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn quota(hard: Value, used: Value) -> ResourceQuota {
        let spec = json!({"hard": hard});
        serde_json::from_value(
            json!({"metadata": {"name": "few"}, "spec": spec, "status": {"hard": hard, "used": used}}),
        )
        .unwrap()
    }

    fn executor() -> Amounts {
        let amounts = json!({"cpu": "1500m", "memory": "2Gi", "nvidia.com/gpu": "1"});
        takes(&json!({"containers": [{"resources": {"requests": amounts, "limits": amounts}}]}))
    }

    #[test]
    fn one_more_pod_is_counted_under_each_name_that_quotas_have() {
        let over = [
            (json!({"pods": "3"}), json!({"pods": "3"}), "pods=3"),
            (json!({"count/pods": "1"}), json!({"count/pods": "1"}), "count/pods=1"),
            (json!({"cpu": "4"}), json!({"cpu": "2600m"}), "cpu=2600m, limited: cpu=4"),
            (json!({"requests.cpu": "4"}), json!({"requests.cpu": "3"}), "requests.cpu=3"),
            (json!({"limits.memory": "4Gi"}), json!({"limits.memory": "2049Mi"}), "limits.memory=2049Mi"),
            (json!({"requests.nvidia.com/gpu": "8"}), json!({"requests.nvidia.com/gpu": "8"}), "gpu=8"),
        ];
        for (hard, used, says) in over {
            let said = exceeded(&quota(hard, used), &executor()).unwrap();
            assert!(said.starts_with("exceeded quota: few, used: ") && said.contains(says), "{said}");
        }
    }

    #[test]
    fn what_fits_is_not_refused() {
        for (hard, used) in [
            (json!({"pods": "4"}), json!({"pods": "3"})),
            (json!({"cpu": "4"}), json!({"cpu": "2500m"})),
            (json!({"limits.memory": "4Gi"}), json!({"limits.memory": "2Gi"})),
            (json!({"services": "0"}), json!({"services": "0"})),
        ] {
            assert_eq!(exceeded(&quota(hard, used), &executor()), None);
        }
        let mut some = quota(json!({"pods": "0"}), json!({"pods": "0"}));
        some.spec.as_mut().unwrap().scopes = Some(vec!["BestEffort".to_owned()]);
        assert_eq!(exceeded(&some, &executor()), None, "it is for some pods only");
    }
}
