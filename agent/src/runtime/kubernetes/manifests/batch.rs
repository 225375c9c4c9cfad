//! Batch: Indexed Jobs, one pod a member, and a headless Service under which rank 0 can be reached, where there are other ranks.
//!
//! A pod of an Indexed Job knows its index, and nothing in a pod's environment can add: so the members of the gang's first group, whose
//! ranks are their indexes, are one Job; each member of a later group is a Job of its own, with its rank written out.

use protocol::control::GroupPlacement;
use protocol::workload::Framework;
use serde_json::{Value, json};

use super::names::{ATTEMPT, name};
use super::pod::{Container, Starts, field, filled, member, variable};
use super::{Kind, Layout, Manifest, ManifestError, Manifests};

/// Where rank 0 may listen: PyTorch's own default. Each pod has an address of its own.
const MASTER_PORT: u16 = 29_500;
/// A Job's name, a dash and an index of up to 100,000 are a host name.
pub(super) const JOB_NAME: usize = 63 - 6;
/// The annotation with it.
pub(super) const INDEX: &str = "metadata.annotations['batch.kubernetes.io/job-completion-index']";

pub(super) fn manifests(layout: &Layout<'_>) -> Result<Manifests, ManifestError> {
    let order = layout.order;
    let spec = order.spec.batch.as_ref().ok_or_else(|| ManifestError::NoPlacement("batch".into()))?;
    let image = spec.image.as_deref().ok_or(ManifestError::NoImage { field: "spec.batch.image" })?;
    let service = name(order, "", 63);
    let world: u32 = order.placement.iter().map(GroupPlacement::members).sum();
    let alone = world == 1;
    let mut objects = if alone { vec![] } else { vec![rendezvous(layout, &service)] };
    let mut samples = vec![];
    let mut first_rank = 0;
    let mut host = String::new();
    for placement in &order.placement {
        let group = placement.group.as_str();
        // Name, number of pods, rank and member's name of each Job.
        let jobs: Vec<(String, u32, Value, Value)> = match first_rank {
            0 => {
                let job = name(order, group, JOB_NAME);
                host = match alone {
                    true => "127.0.0.1".to_owned(),
                    false => format!("{job}-0.{service}.{}.svc", layout.namespace()),
                };
                vec![(job, placement.members(), field("RANK", INDEX), member(&format!("{group}-$(RANK)")))]
            }
            _ => (0..placement.members())
                .map(|index| {
                    let rank = (first_rank + index).to_string();
                    let part = format!("{group}-{index}");
                    (name(order, &part, JOB_NAME), 1, variable("RANK", &rank), member(&part))
                })
                .collect(),
        };
        for (job, pods, rank, member) in jobs {
            let env = vec![
                rank,
                member,
                // Each pod sees its own devices alone, so that each is the first of its kind.
                filled("LOCAL_RANK", "0"),
                filled("WORLD_SIZE", &world.to_string()),
                filled("MASTER_ADDR", &host),
                filled("MASTER_PORT", &MASTER_PORT.to_string()),
            ];
            let (command, starts) = (spec.command.clone(), Starts::Unknown("spec.batch.command"));
            let container = Container { name: "main", image, command, starts, env };
            let mut template = layout.template(placement, container)?;
            if !alone {
                template["spec"]["subdomain"] = json!(service);
            }
            if !samples
                .iter()
                .any(|sample: &Manifest| sample.object["metadata"]["labels"] == template["metadata"]["labels"])
            {
                samples.push(sample(layout, &job, &template));
            }
            objects.push(a_job(layout, placement, job, pods, template));
        }
        first_rank += placement.members();
    }
    Ok(layout.finish(Framework::Batch, objects, samples))
}

/// The annotation of the index is the Job controller's to set, and a field that is not there is none.
pub(super) fn sample(layout: &Layout<'_>, job: &str, template: &Value) -> Manifest {
    let mut sample = layout.sample(job, template);
    sample.object["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] = json!("0");
    sample
}

/// One fails, all fail: nothing is tried again within an attempt, and a pod that was taken away counts as failed, by a condition that
/// says so.
fn a_job(layout: &Layout<'_>, placement: &GroupPlacement, name: String, pods: u32, template: Value) -> Manifest {
    let object = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": layout.metadata(&name, layout.labels_of(placement.group.as_str())),
        "spec": {
            "completionMode": "Indexed",
            "completions": pods,
            "parallelism": pods,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": failure_policy(),
            "template": template,
        },
    });
    Manifest { kind: Kind::Job, name, object }
}

/// A pod that was taken away fails its Job, and says that it was not its program.
pub(super) fn failure_policy() -> Value {
    json!({"rules": [{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]})
}

/// Gives every member a name; also before it is ready, for ranks meet before they are.
fn rendezvous(layout: &Layout<'_>, name: &str) -> Manifest {
    let object = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": layout.metadata(name, layout.labels()),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": true,
            "selector": {ATTEMPT: layout.order.attempt.to_string()},
            "ports": [{"name": "rendezvous", "port": MASTER_PORT}],
        },
    });
    Manifest { kind: Kind::Service, name: name.to_owned(), object }
}
