//! What the node's programs read.

use std::path::PathBuf;

use serde_json::json;

use super::namespaces::INIT;
use super::{Link, Machine, NodeFiles};
use crate::images::Image;

/// Each file with its text.
pub(super) fn all(files: &NodeFiles, machine: &Machine, link: Link, branch: &str) -> Vec<(PathBuf, String)> {
    vec![
        (files.at("init.sh"), INIT.to_owned()),
        (files.at("containerd.toml"), containerd(files, machine)),
        (files.at("cni/pods.conflist"), cni(link)),
        (files.at("kubelet.yaml"), kubelet(files, machine, link, branch)),
        // The machine's own name servers are not for pods: nothing leads there.
        (files.at("resolv.conf"), format!("nameserver {}\n", link.host())),
    ]
}

/// Version 2 of its settings is read by containerd 1.6 and later ones.
fn containerd(files: &NodeFiles, machine: &Machine) -> String {
    let text = |path: PathBuf| json!(path).to_string();
    let (socket, conf, bin) = (text(files.socket()), text(files.at("cni")), text(machine.cni.clone()));
    let (pause, restrict) = (json!(Image::Batch.reference()), !machine.lowers_oom_score);
    format!(
        r#"version = 2
root = "/var/lib/containerd/root"
state = "/run/containerd"
# Those that look for file systems and tools that a node does not need.
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[grpc]
  address = {socket}
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = {pause}
  restrict_oom_score_adj = {restrict}
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {bin}
    conf_dir = {conf}
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"#
    )
}

/// A link for each pod and all traffic routed, so that the way to a service and back passes the same chains without the
/// kernel's bridge filter.
fn cni(link: Link) -> String {
    let ipam = json!({
        "type": "host-local", "dataDir": "/var/lib/cni/networks",
        "ranges": [[{"subnet": link.pods()}]], "routes": [{"dst": "0.0.0.0/0"}],
    });
    let plugin = json!({"type": "ptp", "ipMasq": false, "ipam": ipam});
    format!("{:#}\n", json!({"cniVersion": "0.4.0", "name": "pods", "plugins": [plugin]}))
}

fn kubelet(files: &NodeFiles, machine: &Machine, link: Link, branch: &str) -> String {
    let configuration = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{}", files.socket().display()),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{branch}"),
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "authentication": {
            "anonymous": {"enabled": false}, "webhook": {"enabled": true},
            "x509": {"clientCAFile": files.cluster.join("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "address": link.node().to_string(),
        "healthzBindAddress": link.node().to_string(),
        "clusterDNS": [link.host().to_string()],
        "clusterDomain": "cluster.local",
        "resolvConf": files.at("resolv.conf"),
        // A test's machine may be nearly full; that is not what is tested.
        "evictionHard": {
            "memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%",
        },
        // Images can't be had again.
        "imageGCHighThresholdPercent": 100,
        "maxPods": 100,
        "podLogsDir": "/var/log/pods",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "serverTLSBootstrap": false,
        // It then does without what the kernel refuses, such as a lower chance to be killed for memory.
        "featureGates": {"KubeletInUserNamespace": !machine.lowers_oom_score},
    });
    format!("{configuration:#}\n")
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::path::Path;

    use super::*;

    #[test]
    fn what_the_machine_refuses_is_not_asked_for() {
        let dir = tempfile::tempdir().expect("a folder");
        let link = Link::choose(dir.path(), Some(Ipv4Addr::new(10, 1, 2, 0))).expect("chosen");
        let files = NodeFiles::of(Path::new("/x/y"));
        let texts = |lowers_oom_score| {
            let machine = Machine { cni: "/usr/lib/cni".into(), lowers_oom_score };
            all(&files, &machine, link, "tidewater-1").into_iter().map(|(_, text)| text).collect::<String>()
        };
        assert!(texts(false).contains("restrict_oom_score_adj = true"));
        assert!(texts(false).contains("\"KubeletInUserNamespace\": true"));
        assert!(texts(true).contains("restrict_oom_score_adj = false"));
        assert!(texts(true).contains("\"KubeletInUserNamespace\": false"));
        for needed in ["/x/y/node/containerd.sock", "10.1.3.0/24", "\"cgroupRoot\": \"/tidewater-1\"", "/x/y/ca.crt"] {
            assert!(texts(true).contains(needed), "{needed}");
        }
    }
}
