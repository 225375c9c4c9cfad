//! Which program comes from which Go module, and how it is built. Versions and checksums are those of the `go.mod` and
//! `go.sum` below `testbed/go/`, which are part of this crate.

use ring::digest::{Context, SHA256};

/// A program of the test bed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// The store below the API server.
    Etcd,
    /// `kube-apiserver`.
    ApiServer,
    /// `kube-controller-manager`.
    ControllerManager,
    /// `kube-scheduler`.
    Scheduler,
    /// `kubectl`, for people.
    Kubectl,
    /// Plays the kubelets of nodes that are not there.
    Kwok,
    /// A real node's `kubelet`.
    Kubelet,
    /// `kube-proxy`.
    KubeProxy,
    /// The cluster's name server.
    CoreDns,
    /// The operator that runs RayJobs.
    KubeRay,
    /// The operator that runs SparkApplications.
    SparkOperator,
    /// NVIDIA's device plugin, which tells a kubelet of GPUs and gives them to containers.
    DevicePlugin,
}

impl Tool {
    /// All of them.
    pub const ALL: [Tool; 12] = [
        Tool::Etcd,
        Tool::ApiServer,
        Tool::ControllerManager,
        Tool::Scheduler,
        Tool::Kubectl,
        Tool::Kwok,
        Tool::Kubelet,
        Tool::KubeProxy,
        Tool::CoreDns,
        Tool::KubeRay,
        Tool::SparkOperator,
        Tool::DevicePlugin,
    ];

    /// The program's file name.
    pub fn name(self) -> &'static str {
        match self {
            Tool::Etcd => "etcd",
            Tool::ApiServer => "kube-apiserver",
            Tool::ControllerManager => "kube-controller-manager",
            Tool::Scheduler => "kube-scheduler",
            Tool::Kubectl => "kubectl",
            Tool::Kwok => "kwok",
            Tool::Kubelet => "kubelet",
            Tool::KubeProxy => "kube-proxy",
            Tool::CoreDns => "coredns",
            Tool::KubeRay => "kuberay-operator",
            Tool::SparkOperator => "spark-operator",
            Tool::DevicePlugin => "nvidia-device-plugin",
        }
    }

    /// The package as Go names it.
    pub(super) fn package(self) -> &'static str {
        match self {
            // The server module's root package is the server's main package.
            Tool::Etcd => "go.etcd.io/etcd/server/v3",
            Tool::ApiServer => "k8s.io/kubernetes/cmd/kube-apiserver",
            Tool::ControllerManager => "k8s.io/kubernetes/cmd/kube-controller-manager",
            Tool::Scheduler => "k8s.io/kubernetes/cmd/kube-scheduler",
            Tool::Kubectl => "k8s.io/kubernetes/cmd/kubectl",
            Tool::Kwok => "sigs.k8s.io/kwok/cmd/kwok",
            Tool::Kubelet => "k8s.io/kubernetes/cmd/kubelet",
            Tool::KubeProxy => "k8s.io/kubernetes/cmd/kube-proxy",
            // With only the plugins that the test bed asks for: the rest is mostly clouds' own libraries.
            Tool::CoreDns => ".",
            Tool::KubeRay => "github.com/ray-project/kuberay/ray-operator",
            Tool::SparkOperator => "github.com/kubeflow/spark-operator/v2/cmd/operator",
            Tool::DevicePlugin => "github.com/NVIDIA/k8s-device-plugin/cmd/nvidia-device-plugin",
        }
    }

    pub(super) fn module(self) -> &'static Module {
        match self {
            Tool::Etcd => &ETCD,
            Tool::ApiServer | Tool::ControllerManager | Tool::Scheduler => &KUBERNETES,
            Tool::Kubectl | Tool::Kubelet | Tool::KubeProxy => &KUBERNETES,
            Tool::Kwok => &KWOK,
            Tool::CoreDns => &COREDNS,
            Tool::KubeRay => &KUBERAY,
            Tool::SparkOperator => &SPARK_OPERATOR,
            Tool::DevicePlugin => &DEVICE_PLUGIN,
        }
    }
}

/// Programs that are built in one Go module.
#[derive(Debug)]
pub(super) struct Module {
    pub name: &'static str,
    pub go_mod: &'static str,
    pub go_sum: &'static str,
    /// The one source file and its name: `tools.go` names the packages of other modules, `main.go` is a program.
    pub source: (&'static str, &'static str),
    /// What Kubernetes' own build stamps into its programs. Without it they call themselves v0.0.0.
    linker: &'static str,
    /// What the C linker is told, where parts of it are in C.
    c: Option<&'static str>,
}

macro_rules! module {
    ($name:literal, $linker:expr) => {
        module!($name, $linker, "tools.go")
    };
    ($name:literal, $linker:expr, $source:literal) => {
        Module {
            name: $name,
            go_mod: include_str!(concat!("../../go/", $name, "/go.mod")),
            go_sum: include_str!(concat!("../../go/", $name, "/go.sum")),
            source: ($source, include_str!(concat!("../../go/", $name, "/", $source))),
            linker: $linker,
            c: None,
        }
    };
}

static ETCD: Module = module!("etcd", "-s -w");
static KWOK: Module = module!("kwok", "-s -w -X sigs.k8s.io/kwok/pkg/consts.Version=v0.8.0");
static COREDNS: Module = module!("coredns", "-s -w", "main.go");
static KUBERAY: Module = module!("kuberay", "-s -w");
static SPARK_OPERATOR: Module = module!("spark-operator", "-s -w");
/// Its functions of NVML are looked up when they are called, in whichever library is loaded by then.
static DEVICE_PLUGIN: Module = Module {
    c: Some("-Wl,--unresolved-symbols=ignore-in-object-files -Wl,-z,lazy"),
    ..module!("device-plugin", "-s -w")
};
static KUBERNETES: Module = module!(
    "kubernetes",
    "-s -w -X k8s.io/component-base/version.gitVersion=v1.34.3 -X k8s.io/component-base/version.gitMajor=1 \
     -X k8s.io/component-base/version.gitMinor=34 -X k8s.io/client-go/pkg/version.gitVersion=v1.34.3"
);

impl Module {
    /// The arguments of `go build` before `-o`.
    pub(super) fn flags(&self) -> Vec<&'static str> {
        // No debug tables are made that the linker would only drop again.
        vec!["-mod=readonly", "-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=0", "-ldflags", self.linker]
    }

    /// The variables with which it is built.
    pub(super) fn environment(&self) -> Vec<(&'static str, &'static str)> {
        match self.c {
            Some(linker) => vec![("CGO_ENABLED", "1"), ("CGO_LDFLAGS", linker)],
            None => vec![("CGO_ENABLED", "0")],
        }
    }

    /// What the cache calls it: other versions or flags are another folder, so that nothing stale is ever started.
    pub(super) fn key(&self) -> String {
        let mut hash = Context::new(&SHA256);
        // What only names packages says nothing about them.
        let program = Some(self.source.1).filter(|_| self.source.0 == "main.go");
        let parts = [self.go_mod, self.go_sum, std::env::consts::ARCH].into_iter().chain(self.flags()).chain(program);
        let parts = parts.chain(self.c);
        for part in parts {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        let digest = hash.finish();
        let hex: String = digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{hex}", self.name)
    }

    /// The module whose programs these are, and its version.
    pub(super) fn root(&self) -> (&'static str, &'static str) {
        let line = self.go_mod.lines().find_map(|line| line.strip_prefix("require "));
        line.and_then(|line| line.split_once(' ')).unwrap_or(("", ""))
    }

    /// The oldest Go that builds it, as its `go.mod` says.
    pub(super) fn oldest_go(&self) -> &'static str {
        self.go_mod.lines().find_map(|line| line.strip_prefix("go ")).unwrap_or("1.24")
    }

    /// The same as numbers, to be compared.
    pub(super) fn oldest_go_parts(&self) -> Vec<u32> {
        self.oldest_go().split('.').map(|part| part.parse().unwrap_or(0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_is_named_in_its_module_and_pinned_by_its_checksums() {
        for tool in Tool::ALL {
            let module = tool.module();
            let (name, text) = module.source;
            if tool.package() == "." {
                assert!(name == "main.go" && text.contains("package main"), "{tool:?}");
            } else {
                assert!(text.contains(&format!("\"{}\"", tool.package())), "{tool:?}");
            }
            let (path, version) = module.root();
            assert!(!version.is_empty(), "{tool:?} has one direct module");
            assert!(tool.package() == "." || tool.package().starts_with(path), "{tool:?} is of {path}");
            assert!(module.go_sum.contains(&format!("{path} {version} h1:")), "{tool:?}: {path} has no checksum");
        }
    }

    #[test]
    fn versions_of_go_are_compared_as_numbers() {
        let old = Module { go_mod: "module x\n\ngo 1.9.12\n", ..module!("etcd", "") };
        assert!(old.oldest_go_parts() < ETCD.oldest_go_parts());
        assert_eq!(Tool::ALL.into_iter().max_by_key(|tool| tool.module().oldest_go_parts()), Some(Tool::Kwok));
    }

    #[test]
    fn the_version_that_is_stamped_is_the_one_that_is_built() {
        let kubernetes = &KUBERNETES;
        assert!(kubernetes.go_mod.contains("require k8s.io/kubernetes v1.34.3"));
        assert!(kubernetes.linker.contains("gitVersion=v1.34.3"));
        assert!(KWOK.go_mod.contains("require sigs.k8s.io/kwok v0.8.0"));
    }

    #[test]
    fn the_key_changes_with_checksums_and_flags() {
        let changed = Module { go_sum: "other", ..module!("etcd", "-s -w") };
        let flagged = module!("etcd", "-s");
        assert_eq!(ETCD.key(), module!("etcd", "-s -w").key());
        assert_ne!(ETCD.key(), changed.key());
        assert_ne!(ETCD.key(), flagged.key());
        let other = Module { source: ("main.go", "package main"), ..module!("coredns", "-s -w", "main.go") };
        assert_ne!(COREDNS.key(), other.key(), "a program of ours is part of what is built");
    }
}
