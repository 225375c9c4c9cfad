//! Devices that claims give out (`resource.k8s.io/v1`): a template for each group, from which Kubernetes makes a claim for each pod.
//!
//! A claim carries the attempt's labels, so that it is seen who holds a device and that nothing is left. The nodes need no labels of their
//! devices' model: the claim's selector sees it on each device.

use protocol::control::GroupPlacement;
use serde_json::{Value, json};

use super::names::name;
use super::{Kind, Layout, Manifest};
use crate::kube::DRIVER;
use crate::runtime::kubernetes::offers::{GroupClaim, GroupDevices};

/// What a pod calls its claim, and a claim its one request.
const CLAIM: &str = "gpus";

impl Layout<'_> {
    /// What a group's pods claim, where claims give its devices out.
    pub(super) fn claim(&self, placement: &GroupPlacement) -> Option<(&GroupDevices, &GroupClaim)> {
        let devices = self.devices.get(&placement.group)?;
        Some((devices, devices.claim.as_ref()?))
    }

    fn template_name(&self, placement: &GroupPlacement) -> String {
        name(self.order, &format!("{CLAIM}-{}", placement.group), 63)
    }

    /// The templates of all groups.
    pub(super) fn claim_templates(&self) -> impl Iterator<Item = Manifest> {
        self.order.placement.iter().filter_map(|placement| {
            let (devices, claim) = self.claim(placement)?;
            let name = self.template_name(placement);
            let labels = self.labels_of(placement.group.as_str());
            let request = json!({
                "name": CLAIM,
                "exactly": {
                    "deviceClassName": devices.resource,
                    "allocationMode": "ExactCount",
                    "count": placement.each.gpu_milli / 1000,
                    "selectors": [{"cel": {"expression": selector(claim)}}],
                },
            });
            let object = json!({
                "apiVersion": "resource.k8s.io/v1",
                "kind": "ResourceClaimTemplate",
                "metadata": self.metadata(&name, labels.clone()),
                "spec": {"metadata": {"labels": labels}, "spec": {"devices": {"requests": [request]}}},
            });
            Some(Manifest { kind: Kind::ResourceClaimTemplate, name, object })
        })
    }

    /// The claims of a group's pods.
    pub(super) fn pod_claims(&self, placement: &GroupPlacement) -> Option<Value> {
        self.claim(placement)?;
        Some(json!([{"name": CLAIM, "resourceClaimTemplateName": self.template_name(placement)}]))
    }

    /// Those of the container that uses them.
    pub(super) fn container_claims(&self, placement: &GroupPlacement) -> Option<Value> {
        self.claim(placement)?;
        Some(json!([{"name": CLAIM}]))
    }
}

/// Which devices of the class it may be, in CEL. A text of JSON is one there too.
fn selector(claim: &GroupClaim) -> String {
    let of = |attribute: &str| format!("device.attributes[\"{DRIVER}\"].{attribute}");
    let (kind, product, products) = (of("type"), of("productName"), json!(claim.products));
    let (is, profile) = match &claim.profile {
        Some(profile) => ("mig", format!(" && {} == {}", of("profile"), json!(profile))),
        None => ("gpu", String::new()),
    };
    format!("device.driver == \"{DRIVER}\" && {kind} == \"{is}\" && {product} in {products}{profile}")
}
