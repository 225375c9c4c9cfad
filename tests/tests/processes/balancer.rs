//! What a cloud has and the test bed has not: load balancers. Each UDP service that asks for one gets an address on the host's end of its node's
//! link, and what comes there goes on to the node's port of the service, as a cloud's would.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use testbed::ControlPlane;
use testbed::node::Link;
use tokio::net::UdpSocket;
use tokio::runtime::Runtime;
use tokio::task::{JoinHandle, JoinSet};

/// Between two looks at what services there are.
const LOOK: Duration = Duration::from_millis(500);
/// The first address that is given out: the host and the node have the first two of the link.
const FIRST: u32 = 10;
/// The largest datagram.
const DATAGRAM: usize = 65_536;

/// Plays the load balancers of a cluster with a real node, until it is dropped.
pub struct Balancer(JoinHandle<()>);

impl Drop for Balancer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Gives addresses from now on.
pub fn play(runtime: &Runtime, plane: &ControlPlane) -> anyhow::Result<Balancer> {
    let link = plane.link().context("the cluster has no real node")?;
    let services: Api<Service> = Api::all(plane.client());
    Ok(Balancer(runtime.spawn(async move {
        let (mut given, mut ways) = (BTreeSet::new(), JoinSet::new());
        loop {
            if let Err(error) = look(&services, link, &mut given, &mut ways).await {
                eprintln!("    load balancers: {error:#}");
            }
            tokio::time::sleep(LOOK).await;
        }
    })))
}

async fn look(
    services: &Api<Service>,
    link: Link,
    given: &mut BTreeSet<String>,
    ways: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    for service in services.list(&ListParams::default()).await?.items {
        let (Some(name), Some(namespace), Some(spec)) =
            (service.metadata.name, service.metadata.namespace, service.spec)
        else {
            continue;
        };
        let port = spec.ports.iter().flatten().find(|port| port.protocol.as_deref() == Some("UDP"));
        let Some(port) = port.filter(|_| spec.type_.as_deref() == Some("LoadBalancer")) else { continue };
        let Some(node_port) = port.node_port.filter(|_| !given.contains(&name)) else { continue };
        let address = Ipv4Addr::from(u32::from(link.host()) + FIRST + u32::try_from(given.len())?);
        let added = Command::new("ip")
            .args(["address", "add", &format!("{address}/32"), "dev", &link.interface()])
            .output()
            .context("ip")?;
        ensure!(added.status.success(), "{address}: {}", String::from_utf8_lossy(&added.stderr));
        let socket = UdpSocket::bind((address, u16::try_from(port.port)?)).await?;
        ways.spawn(pass(Arc::new(socket), (link.node(), u16::try_from(node_port)?).into()));
        given.insert(name.clone());
        let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": address.to_string()}]}}});
        let services: Api<Service> = Api::namespaced(services.clone().into_client(), &namespace);
        services.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await?;
    }
    Ok(())
}

/// Passes on what comes, by a socket of its own for each sender, and the answers back.
async fn pass(socket: Arc<UdpSocket>, to: SocketAddr) {
    let mut ways: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut answers = JoinSet::new();
    let mut datagram = vec![0; DATAGRAM];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut datagram).await else { continue };
        let way = match ways.get(&from) {
            Some(way) => way.clone(),
            None => {
                let Ok(way) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await else { continue };
                if way.connect(to).await.is_err() {
                    continue;
                }
                let way = Arc::new(way);
                answers.spawn(back(way.clone(), socket.clone(), from));
                ways.insert(from, way.clone());
                way
            }
        };
        // What is lost is sent again.
        let _ = way.send(&datagram[..length]).await;
    }
}

async fn back(way: Arc<UdpSocket>, socket: Arc<UdpSocket>, to: SocketAddr) {
    let mut datagram = vec![0; DATAGRAM];
    loop {
        match way.recv(&mut datagram).await {
            Ok(length) => drop(socket.send_to(&datagram[..length], to).await),
            // Nobody listens there now.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
