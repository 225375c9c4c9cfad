//! The kinds of objects that an attempt may consist of.

use kube::core::ApiResource;

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// KubeRay's job with its cluster.
    RayJob,
    /// KubeRay's cluster, made by KubeRay from a `RayJob`.
    RayCluster,
    /// The Spark operator's application.
    SparkApplication,
    /// A job of Kubernetes itself.
    Job,
    /// A pod.
    Pod,
    /// A service.
    Service,
    /// A config map.
    ConfigMap,
    /// What the claims of a group's pods are made from.
    ResourceClaimTemplate,
    /// A pod's claim to devices. Kubernetes makes it from the template, and deletes it with its pod.
    ResourceClaim,
    /// A Secret: one of the attempt's tokens.
    Secret,
}

impl Kind {
    /// All that are looked for by their labels, owners before what they own. Not Secrets: who may list those can read everybody's.
    pub const LISTED: [Kind; 9] = [
        Kind::RayJob,
        Kind::RayCluster,
        Kind::SparkApplication,
        Kind::Job,
        Kind::Pod,
        Kind::Service,
        Kind::ConfigMap,
        Kind::ResourceClaimTemplate,
        Kind::ResourceClaim,
    ];

    /// Those that an attempt has besides where claims give its devices out.
    pub const OF_CLAIMS: [Kind; 2] = [Kind::ResourceClaimTemplate, Kind::ResourceClaim];

    /// Those whose state tells how an attempt goes.
    pub const OWNERS: [Kind; 3] = [Kind::Job, Kind::RayJob, Kind::SparkApplication];

    /// Group, version, name and plural, as the API has them.
    fn parts(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Kind::RayJob => ("ray.io", "v1", "RayJob", "rayjobs"),
            Kind::RayCluster => ("ray.io", "v1", "RayCluster", "rayclusters"),
            Kind::SparkApplication => ("sparkoperator.k8s.io", "v1beta2", "SparkApplication", "sparkapplications"),
            Kind::Job => ("batch", "v1", "Job", "jobs"),
            Kind::Pod => ("", "v1", "Pod", "pods"),
            Kind::Service => ("", "v1", "Service", "services"),
            Kind::ConfigMap => ("", "v1", "ConfigMap", "configmaps"),
            Kind::ResourceClaimTemplate => ("resource.k8s.io", "v1", "ResourceClaimTemplate", "resourceclaimtemplates"),
            Kind::ResourceClaim => ("resource.k8s.io", "v1", "ResourceClaim", "resourceclaims"),
            Kind::Secret => ("", "v1", "Secret", "secrets"),
        }
    }

    /// Its place in the API.
    pub fn resource(self) -> ApiResource {
        let (group, version, kind, plural) = self.parts();
        ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: self.api_version(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        }
    }

    /// `batch/v1` and so on.
    pub fn api_version(self) -> String {
        match self.parts() {
            ("", version, ..) => version.to_owned(),
            (group, version, ..) => format!("{group}/{version}"),
        }
    }

    /// `Job` and so on.
    pub fn name(self) -> &'static str {
        self.parts().2
    }

    /// `jobs` and so on.
    pub fn plural(self) -> &'static str {
        self.parts().3
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
