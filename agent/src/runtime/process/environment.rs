//! The environment of an attempt's processes: a few of the agent's own variables, the workload's, and Tidewater's.
//! Nothing else of the agent's environment reaches a workload.

use std::collections::BTreeMap;

use protocol::control::LaunchOrder;
use protocol::ids::ClusterName;

use super::tokens::TokenFiles;
use crate::guard::plan::{MARK, MEMBER};
use crate::guard::record::Record;
use crate::runtime::members::Member;

/// What programs need of the machine: where things are, who and where they are, and how they reach the network.
const PASSED: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "JAVA_HOME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];

/// A member's share of its GPU, such as `0.25`; not set where its GPUs are its own.
const SHARE: &str = "TIDEWATER_GPU_SHARE";

/// The environment that all processes of an attempt share.
#[derive(Debug, Clone)]
pub(super) struct Base {
    passed: BTreeMap<String, String>,
    user: BTreeMap<String, String>,
    own: BTreeMap<String, String>,
}

impl Base {
    /// The environment for this order, which has this record, on this cluster.
    pub(super) fn of(order: &LaunchOrder, cluster: &ClusterName, record: &Record) -> Self {
        let passed = PASSED.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect();
        let pool = order.spec.pool.as_ref().map_or("default", |pool| pool.as_str());
        let own = [
            (MARK, order.attempt.to_string()),
            ("TIDEWATER_WORKLOAD", order.key.to_string()),
            ("TIDEWATER_CLUSTER", cluster.to_string()),
            ("TIDEWATER_POOL", pool.to_owned()),
            // Logs are followed while the program runs.
            ("PYTHONUNBUFFERED", "1".to_owned()),
        ];
        Self {
            passed,
            user: order.spec.env.clone(),
            own: own
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .chain(TokenFiles::of(record).variables(order))
                .collect(),
        }
    }

    /// The machine's `PATH`, as the workload sees it.
    pub(super) fn path(&self) -> String {
        let set = self.user.get("PATH").or_else(|| self.passed.get("PATH"));
        set.cloned().unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".to_owned())
    }

    /// The shared variables and `more`, which wins over the workload's own: a rank cannot be made up.
    pub(super) fn with<const N: usize>(&self, more: [(&str, String); N]) -> BTreeMap<String, String> {
        let mut env = self.passed.clone();
        env.extend(self.user.clone());
        env.extend(self.own.clone());
        env.extend(more.into_iter().map(|(name, value)| (name.to_owned(), value)));
        env
    }

    /// [`Self::with`] for one member of the gang.
    pub(super) fn of_member<const N: usize>(
        &self,
        member: &Member,
        more: [(&str, String); N],
    ) -> BTreeMap<String, String> {
        let mut env = self.with(more);
        // Nothing keeps a program to its share: it is told, so that it can keep itself to it.
        env.remove(SHARE);
        if let Some(share) = member.share() {
            env.insert(SHARE.to_owned(), share);
        }
        for (name, value) in [
            ("TIDEWATER_GROUP", member.group.to_string()),
            ("TIDEWATER_NODE", member.node.to_string()),
            (MEMBER, member.name()),
        ]
        .into_iter()
        .chain(of_devices(member.visible_devices()))
        {
            env.insert(name.to_owned(), value);
        }
        env
    }
}

/// What tells a process its devices.
pub(super) fn of_devices(visible: String) -> [(&'static str, String); 2] {
    // For what starts containers itself. `void` is this variable's word for none.
    let containers = if visible.is_empty() { "void".to_owned() } else { visible.clone() };
    // Set also where it is empty: a member without GPUs must see none.
    [("CUDA_VISIBLE_DEVICES", visible), ("NVIDIA_VISIBLE_DEVICES", containers)]
}
