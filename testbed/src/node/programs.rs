//! The command lines of the processes of a node.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Link, NODE_NAME, NodeFiles, REAL_LABEL, find};
use crate::control_plane::Component;

/// Where kube-proxy says that it is healthy, on the node's address.
pub(crate) const PROXY_HEALTH: u16 = 10_256;

/// A file and the arguments it is started with: the component's own program (`binary`, for what is built) behind those that
/// open namespaces or enter them. `holder` is the process that has the namespaces: the network's for [`Component::Node`],
/// the node's first process for what runs in it.
pub(crate) fn program(
    component: Component,
    cluster: &Path,
    link: Link,
    binary: Option<&Path>,
    holder: i32,
) -> (PathBuf, Vec<OsString>) {
    let files = NodeFiles::of(cluster);
    let line = match component {
        Component::NodeNetwork => words(&["unshare", "--net", "sleep", "infinity"]),
        Component::Node => {
            let network = format!("--net=/proc/{holder}/ns/net");
            let mut line = words(&["nsenter", &network, "unshare", "--mount", "--pid", "--fork", "--kill-child=KILL"]);
            line.extend(words(&["--mount-proc", "sh", "node/init.sh"]));
            line
        }
        _ => {
            let target = holder.to_string();
            let mut line = words(&["nsenter", "--target", &target, "--net", "--mount", "--pid"]);
            line.push(binary.map_or_else(|| component.name().into(), |path| path.as_os_str().to_owned()));
            line.extend(arguments(component, &files, cluster, link));
            line
        }
    };
    let mut line = line.into_iter();
    let name = line.next().unwrap_or_default();
    // A program that is not there is told by its name when it is started.
    (find(&name.to_string_lossy()).unwrap_or_else(|| PathBuf::from(name)), line.collect())
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn arguments(component: Component, files: &NodeFiles, cluster: &Path, link: Link) -> Vec<OsString> {
    let set = |flag: &str, value: &dyn AsRef<std::ffi::OsStr>| {
        let mut argument = OsString::from(format!("--{flag}="));
        argument.push(value.as_ref());
        argument
    };
    match component {
        Component::Containerd => vec![set("config", &files.at("containerd.toml"))],
        Component::Kubelet => vec![
            set("config", &files.at("kubelet.yaml")),
            set("kubeconfig", &cluster.join("kubelet.kubeconfig")),
            set("root-dir", &"/var/lib/kubelet"),
            set("cert-dir", &"/var/lib/kubelet/pki"),
            set("hostname-override", &NODE_NAME),
            set("node-ip", &link.node().to_string()),
            set("node-labels", &format!("{}={}", REAL_LABEL.0, REAL_LABEL.1)),
        ],
        Component::KubeProxy => vec![
            set("kubeconfig", &cluster.join("kube-proxy.kubeconfig")),
            set("hostname-override", &NODE_NAME),
            set("proxy-mode", &"iptables"),
            set("cluster-cidr", &link.pods()),
            set("bind-address", &link.node().to_string()),
            set("healthz-bind-address", &format!("{}:{PROXY_HEALTH}", link.node())),
            set("metrics-bind-address", &"127.0.0.1:10249"),
            // The machine's, which a namespace may not change.
            set("conntrack-max-per-core", &"0"),
            set("conntrack-min", &"0"),
            set("conntrack-tcp-timeout-established", &"0s"),
            set("conntrack-tcp-timeout-close-wait", &"0s"),
        ],
        _ => vec![],
    }
}
