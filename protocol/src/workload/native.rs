//! Objects of Kubernetes that a person hands in as they are: a `RayJob` of KubeRay, a `SparkApplication` of the Spark operator, or a `Job`.
//!
//! What such an object asks for is read once, as it comes in; the object itself is kept as text, and goes to the agent of the chosen
//! cluster. What it leaves out is as KubeRay 1.6, the Spark operator 2.5 and Kubernetes fill it in.

mod job;
mod place;
mod pod;
mod ray;
mod spark;
#[cfg(test)]
mod tests;

use bincode::{Decode, Encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use self::place::{Faults, Place};
use super::{Framework, GroupNeed, SpecError, WorkloadSpec};
use crate::api::{API_VERSION, Metadata, WorkloadObject};
use crate::ids::{Namespace, PoolName, WorkloadName};

/// The longest object, in bytes of JSON: it has to fit into the record of its attempt beside the rest.
pub const MAX_NATIVE: usize = 256 * 1024;
/// The field of a specification in which such an object stands.
const FIELD: &str = "spec.manifest";
/// The label of an object with the pool of its workload.
pub const POOL_LABEL: &str = "tidewater.dev/pool";
/// The annotation of an object with the priority of its workload.
pub const PRIORITY_ANNOTATION: &str = "tidewater.dev/priority";

/// An object as it was handed in, and the gang that it asks for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct NativeManifest {
    /// JSON.
    text: String,
    /// None: something is wrong with it.
    gang: Option<NativeGang>,
}

/// What an object asks for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct NativeGang {
    /// What runs it.
    pub framework: Framework,
    /// Its groups, the head or driver first. Whether their members are kept apart is not the object's to say.
    pub groups: Vec<GroupNeed>,
}

/// The kinds that can be handed in, as `apiVersion` and `kind` name them, and what runs them.
const KINDS: [(&str, &str, Framework); 3] = [
    ("ray.io/v1", "RayJob", Framework::Ray),
    ("sparkoperator.k8s.io/v1beta2", "SparkApplication", Framework::Spark),
    ("batch/v1", "Job", Framework::Batch),
];

/// Whether an object of this kind can be handed in as it is.
pub fn is_native(kind: &str) -> bool {
    KINDS.iter().any(|(_, known, _)| *known == kind)
}

/// The kind of the objects that run on a framework.
pub fn native_kind(framework: Framework) -> &'static str {
    KINDS.iter().find(|(.., runs)| *runs == framework).map_or("object", |(_, kind, _)| kind)
}

impl NativeManifest {
    /// Takes an object and reads what it asks for.
    pub fn new(object: &Value) -> Self {
        let mut faults = Faults::default();
        let gang = read(object, FIELD, &mut faults).filter(|_| faults.is_empty());
        Self { text: object.to_string(), gang }
    }

    /// What it asks for; none where something is wrong with it.
    pub fn gang(&self) -> Option<&NativeGang> {
        self.gang.as_ref()
    }

    /// The object.
    pub fn object(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// Everything that is wrong with it, each with its field.
    pub fn problems(&self) -> Vec<SpecError> {
        let mut faults = Faults::default();
        if self.text.len() > MAX_NATIVE {
            let problem = format!("it has {} bytes; at most {MAX_NATIVE} are allowed", self.text.len());
            return vec![SpecError { field: FIELD.into(), problem }];
        }
        read(&self.object(), FIELD, &mut faults);
        faults.into_inner()
    }

    /// A property of a Spark application.
    pub fn spark_property(&self, name: &str) -> Option<String> {
        let conf = self.object();
        Some(conf.get("spec")?.get("sparkConf")?.get(name)?.as_str()?.to_owned())
    }
}

impl Serialize for NativeManifest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.object().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for NativeManifest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(|object| Self::new(&object))
    }
}

/// A workload of an object that is handed in alone: its name and namespace are the object's; its pool and its priority can be said by a
/// label and an annotation. Problems name the object's own fields.
pub fn workload_of(object: &Value) -> Result<WorkloadObject, Vec<SpecError>> {
    let mut faults = Faults::default();
    let place = Place::root(object, "");
    let metadata = place.get("metadata");
    let name = metadata.get("name").parsed(WorkloadName::new, "name it", &mut faults);
    let namespace = metadata.get("namespace");
    let namespace = namespace.is_there().then(|| namespace.parsed(Namespace::new, "name one", &mut faults)).flatten();
    let pool = metadata.get("labels").get(POOL_LABEL);
    let pool = pool.is_there().then(|| pool.parsed(PoolName::new, "name a pool", &mut faults)).flatten();
    let priority = metadata.get("annotations").get(PRIORITY_ANNOTATION);
    let whole = |text: &str| text.parse::<i32>().map_err(|_| "it is no whole number between -2^31 and 2^31");
    let priority = priority.is_there().then(|| priority.parsed(whole, "write one", &mut faults)).flatten();
    read(object, "", &mut faults);
    let Some(name) = name.filter(|_| faults.is_empty()) else { return Err(faults.into_inner()) };
    let manifest = Some(NativeManifest::new(object));
    let spec = WorkloadSpec { pool, priority: priority.unwrap_or_default(), manifest, ..WorkloadSpec::default() };
    let metadata = Metadata {
        name,
        namespace,
        uid: None,
        resource_version: None,
        creation_timestamp: None,
        deletion_timestamp: None,
    };
    Ok(WorkloadObject {
        api_version: API_VERSION.to_owned(),
        kind: "Workload".to_owned(),
        metadata,
        spec,
        status: None,
    })
}

fn read(object: &Value, field: &str, faults: &mut Faults) -> Option<NativeGang> {
    let place = Place::root(object, field);
    let said = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (said("apiVersion"), said("kind"));
    let known = KINDS.iter().find(|(_, known, _)| *known == kind);
    let Some((wanted, _, framework)) = known else {
        let kinds: Vec<String> = KINDS.iter().map(|(version, kind, _)| format!("{kind} ({version})")).collect();
        place.get("kind").fault(format!("{kind:?} can't be handed in as it is: {} can", kinds.join(", ")), faults);
        return None;
    };
    if version != *wanted {
        place.get("apiVersion").fault(format!("it is {version:?}; a {kind} is of {wanted}"), faults);
        return None;
    }
    let spec = place.get("spec");
    if !spec.value().is_some_and(Value::is_object) {
        spec.fault("it is not there: write what is to run", faults);
        return None;
    }
    let groups = match framework {
        Framework::Ray => ray::groups(&spec, faults),
        Framework::Spark => spark::groups(&spec, faults),
        Framework::Batch => job::groups(&spec, faults),
    };
    Some(NativeGang { framework: *framework, groups })
}

/// Metadata that an API server or a controller wrote, which says nothing of what is asked for.
pub fn without_server(metadata: &Value) -> Map<String, Value> {
    let mut kept = metadata.as_object().cloned().unwrap_or_default();
    kept.retain(|name, _| matches!(&**name, "labels" | "annotations"));
    if let Some(annotations) = kept.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    kept
}
