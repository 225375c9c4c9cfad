//! The command line of each component. Everything listens on loopback alone, or on the link to the real node.

use std::ffi::OsString;

use super::credentials::{Files, SERVICE_RANGE};
use super::ports::Ports;
use super::settings::{Component, Settings};
use crate::fake::FAKE_LABEL;
use crate::node::Link;

/// How long a node's lease may go without renewal before the node counts as lost, where kwok renews it each minute.
const FAKE_NODE_GRACE: &str = "5m";

/// A flag and its value as one argument, so that values may begin with anything.
struct Line(Vec<OsString>);

impl Line {
    fn set(mut self, flag: &str, value: impl Into<OsString>) -> Self {
        let mut argument = OsString::from(format!("--{flag}="));
        argument.push(value.into());
        self.0.push(argument);
        self
    }
}

/// The arguments of a component of this control plane.
pub(super) fn of(
    component: Component,
    settings: &Settings,
    files: &Files,
    ports: Ports,
    link: Option<Link>,
) -> Vec<OsString> {
    let line = Line(vec![]);
    match component {
        Component::Etcd => etcd(line, files, ports),
        Component::ApiServer => api_server(line, settings, files, ports, link),
        Component::ControllerManager => controller_manager(line, settings, files, ports),
        Component::Scheduler => scheduler(line, files, ports),
        Component::Kwok => kwok(line, files, ports),
        Component::CoreDns => line.set("conf", files.at("Corefile")),
        Component::KubeRay => kuberay(line, files, ports),
        Component::SparkOperator => spark_operator(line, files, ports),
        // Those of the real node have command lines of its own.
        Component::NodeNetwork | Component::Node | Component::Containerd => line,
        Component::Kubelet | Component::KubeProxy => line,
    }
    .0
}

fn etcd(line: Line, files: &Files, ports: Ports) -> Line {
    let clients = format!("http://127.0.0.1:{}", ports.etcd);
    let peers = format!("http://127.0.0.1:{}", ports.etcd_peer);
    line.set("name", "testbed")
        .set("data-dir", files.at("etcd"))
        .set("listen-client-urls", &clients)
        .set("advertise-client-urls", &clients)
        .set("listen-peer-urls", &peers)
        .set("initial-advertise-peer-urls", &peers)
        .set("initial-cluster", format!("testbed={peers}"))
        .set("logger", "zap")
        .set("log-level", "warn")
}

fn api_server(line: Line, settings: &Settings, files: &Files, ports: Ports, link: Option<Link>) -> Line {
    let line = match link {
        // Pods come by the service, whose endpoint is this address.
        Some(link) => line
            .set("bind-address", link.host().to_string())
            .set("advertise-address", link.host().to_string())
            .set("authorization-mode", "Node,RBAC")
            .set("kubelet-preferred-address-types", "InternalIP")
            .set("kubelet-client-certificate", files.at("kubelet-client.crt"))
            .set("kubelet-client-key", files.at("kubelet-client.key")),
        None => line
            .set("bind-address", "127.0.0.1")
            .set("advertise-address", "127.0.0.1")
            .set("authorization-mode", "RBAC")
            // A service may not point at loopback: the `kubernetes` service has no endpoint.
            .set("endpoint-reconciler-type", "none"),
    };
    let line = line
        .set("etcd-servers", format!("http://127.0.0.1:{}", ports.etcd))
        .set("secure-port", ports.api_server.to_string())
        .set("tls-cert-file", files.at("server.crt"))
        .set("tls-private-key-file", files.at("server.key"))
        .set("cert-dir", files.at("api-server-certificates"))
        .set("client-ca-file", files.at("ca.crt"))
        .set("token-auth-file", files.at("tokens.csv"))
        .set("service-account-issuer", "https://kubernetes.default.svc")
        .set("service-account-key-file", files.at("service-accounts.pub"))
        .set("service-account-signing-key-file", files.at("service-accounts.key"))
        .set("service-cluster-ip-range", SERVICE_RANGE)
        .set("allow-privileged", "true")
        // Tests load it from many sides at once; the defaults of 400 and 200 would answer 429.
        .set("max-requests-inflight", "3000")
        .set("max-mutating-requests-inflight", "1500")
        .set("audit-policy-file", files.at("audit-policy.yaml"))
        .set("audit-log-path", files.at("audit.log"))
        // MB. One file, whatever a test writes.
        .set("audit-log-maxsize", "1000000");
    if settings.has(Component::ControllerManager) {
        line
    } else {
        // Nobody makes service accounts: with this plugin no pod would be let in.
        line.set("disable-admission-plugins", "ServiceAccount")
    }
}

fn controller_manager(line: Line, settings: &Settings, files: &Files, ports: Ports) -> Line {
    let line = serving(line, files, ports.controller_manager)
        .set("kubeconfig", files.kubeconfig_of(Component::ControllerManager))
        .set("service-account-private-key-file", files.at("service-accounts.key"))
        .set("root-ca-file", files.at("ca.crt"))
        .set("use-service-account-credentials", "true")
        .set("allocate-node-cidrs", "false")
        .set("leader-elect", "false")
        .set("kube-api-qps", "500")
        .set("kube-api-burst", "1000");
    if !settings.has(Component::Kwok) {
        return line;
    }
    line.set("node-monitor-grace-period", FAKE_NODE_GRACE)
        // It writes into every node how long its kubelet may cache secrets, once more each time that the fleet has grown.
        .set("controllers", "*,-ttl-controller")
}

fn scheduler(line: Line, files: &Files, ports: Ports) -> Line {
    serving(line, files, ports.scheduler).set("config", files.at("scheduler.yaml"))
}

fn kwok(line: Line, files: &Files, ports: Ports) -> Line {
    line.set("kubeconfig", files.kubeconfig_of(Component::Kwok))
        .set("config", files.at("kwok.yaml"))
        .set("server-address", format!("127.0.0.1:{}", ports.kwok))
        .set("manage-all-nodes", "false")
        .set("manage-nodes-with-label-selector", format!("{}={}", FAKE_LABEL.0, FAKE_LABEL.1))
}

fn kuberay(line: Line, files: &Files, ports: Ports) -> Line {
    line.set("kubeconfig", files.kubeconfig_of(Component::KubeRay))
        .set("health-probe-bind-address", format!("127.0.0.1:{}", ports.kuberay))
        .set("metrics-addr", "0")
        .set("enable-leader-election", "false")
        // It is no pod and cannot resolve the cluster's names: it speaks to Ray through the API server.
        .set("use-kubernetes-proxy", "true")
}

fn spark_operator(line: Line, files: &Files, ports: Ports) -> Line {
    Line(line.0.into_iter().chain(["controller".into(), "start".into()]).collect())
        .set("kubeconfig", files.kubeconfig_of(Component::SparkOperator))
        .set("namespaces", "")
        .set("health-probe-bind-address", format!("127.0.0.1:{}", ports.spark_operator))
        .set("enable-metrics", "false")
        .set("leader-election", "false")
}

/// What the name server does: the cluster's names alone.
pub(super) fn corefile(files: &Files, ports: Ports, link: Option<Link>) -> String {
    let address = link.map_or_else(|| "127.0.0.1".to_owned(), |link| link.host().to_string());
    let kubeconfig = files.kubeconfig_of(Component::CoreDns);
    format!(
        ".:53 {{\n  bind {address}\n  errors\n  ready 127.0.0.1:{}\n  kubernetes cluster.local in-addr.arpa {{\n    \
         kubeconfig \"{}\"\n    pods insecure\n    ttl 1\n  }}\n}}\n",
        ports.core_dns,
        kubeconfig.display()
    )
}

/// What a component finds in its environment.
pub(super) fn environment(
    component: Component,
    settings: &Settings,
    files: &Files,
    ports: Ports,
    link: Option<Link>,
) -> Vec<(&'static str, OsString)> {
    if component != Component::SparkOperator {
        return vec![];
    }
    let host = link.map_or_else(|| "127.0.0.1".to_owned(), |link| link.host().to_string());
    let spark = settings.node.as_ref().and_then(|node| node.images.spark_home());
    // It submits by Spark's own program, which takes certificate and token from the kubeconfig and the place from these.
    let mut environment = vec![
        ("KUBECONFIG", files.kubeconfig_of(component).into()),
        ("KUBERNETES_SERVICE_HOST", host.into()),
        ("KUBERNETES_SERVICE_PORT", ports.api_server.to_string().into()),
    ];
    environment.extend(spark.map(|home| ("SPARK_HOME", home.into())));
    environment
}

/// A component's own page of health, with the control plane's certificate.
fn serving(line: Line, files: &Files, port: u16) -> Line {
    line.set("bind-address", "127.0.0.1")
        .set("secure-port", port.to_string())
        .set("tls-cert-file", files.at("server.crt"))
        .set("tls-private-key-file", files.at("server.key"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: Ports = Ports {
        etcd: 1,
        etcd_peer: 2,
        api_server: 3,
        controller_manager: 4,
        scheduler: 5,
        kwok: 6,
        core_dns: 7,
        kuberay: 8,
        spark_operator: 9,
    };

    #[test]
    fn nothing_listens_beyond_loopback() {
        let settings = Settings::with_fake_nodes("/x");
        let of_plane = |component: &Component| !component.is_of_node() && *component != Component::CoreDns;
        for component in Component::ALL.into_iter().filter(of_plane) {
            let line = of(component, &settings, &Files::of("/x".as_ref()), PORTS, None);
            let text: Vec<String> = line.iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
            let listens = ["bind-address=", "listen-", "server-address=", "probe-bind-address="];
            let addresses = text.iter().filter(|a| listens.iter().any(|flag| a.contains(flag)));
            assert!(addresses.clone().all(|a| a.contains("127.0.0.1")), "{text:?}");
            assert!(addresses.count() > 0, "{component:?} listens everywhere unless it is told where");
        }
    }

    #[test]
    fn pods_are_let_in_where_nobody_makes_service_accounts() {
        let has = |settings: Settings| {
            let line = of(Component::ApiServer, &settings, &Files::of("/x".as_ref()), PORTS, None);
            line.contains(&OsString::from("--disable-admission-plugins=ServiceAccount"))
        };
        assert!(has(Settings::api_only("/x")));
        assert!(!has(Settings::whole("/x")));
    }
}
