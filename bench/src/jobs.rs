//! Jobs that an agent made, to be made again by a plain client.

use k8s_openapi::api::batch::v1::Job;
use kube::api::ObjectMeta;

/// The same Job as it was before any controller added to it, still without a name, and by nobody's order.
pub fn nobodys(mut job: Job) -> Job {
    let mut labels = job.metadata.labels.take().unwrap_or_default();
    // As long as its own, so that it costs the same; nobody's, so that no agent takes it for an attempt's.
    labels.insert("app.kubernetes.io/managed-by".to_owned(), "benchmark".to_owned());
    let spec = job.spec.get_or_insert_default();
    spec.selector = None;
    spec.manual_selector = None;
    let pods = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    pods.retain(|name, _| !name.contains("controller-uid") && !name.contains("job-name"));
    job.metadata = ObjectMeta { labels: Some(labels), ..ObjectMeta::default() };
    job.status = None;
    job
}
