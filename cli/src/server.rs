//! Finds the server to talk to: `--server` or TIDEWATER_SERVER, else the current context of a kubeconfig: the one that
//! TIDEWATER_KUBECONFIG names, else the one that `tidewater dev` writes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::args::Global;
use crate::client::Client;
use crate::exit::Failure;

/// How long a read without an answer is tried again.
pub const PATIENCE_TO_READ: Duration = Duration::from_secs(3);
/// How long a change without an answer is tried again. An election takes about a second.
pub const PATIENCE_TO_CHANGE: Duration = Duration::from_secs(20);

/// A client for the server of this command line, which tries again for `patience` unless `--retry-for` says otherwise.
pub fn connect(global: &Global, patience: Duration) -> anyhow::Result<Client> {
    let patience = global.retry_for.map_or(patience, |span| Duration::from_millis(span.0));
    let url = match &global.server {
        Some(url) => url.clone(),
        None => from_kubeconfig()?,
    };
    Ok(Client::new(&url)?.with_patience(patience))
}

/// What is read of a kubeconfig; the rest of it is left alone.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    current_context: Option<String>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
}

#[derive(Debug, Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Debug, Deserialize)]
struct Context {
    cluster: String,
}

#[derive(Debug, Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Debug, Deserialize)]
struct Cluster {
    server: String,
}

/// Where `tidewater dev` writes its kubeconfig unless it is told otherwise.
pub fn default_kubeconfig() -> Option<PathBuf> {
    let data = std::env::var_os("XDG_DATA_HOME")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".local/share")))?;
    Some(data.join("tidewater/dev/kubeconfig"))
}

fn from_kubeconfig() -> Result<String, Failure> {
    let named = std::env::var_os("TIDEWATER_KUBECONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    let cure = "start one with `tidewater dev`, or name one with --server URL or TIDEWATER_SERVER";
    let path = match &named {
        Some(path) => path.clone(),
        None => default_kubeconfig().ok_or_else(|| Failure::NoServer(format!("no server is known: {cure}")))?,
    };
    let text = std::fs::read_to_string(&path).map_err(|e| match (&named, e.kind()) {
        (None, std::io::ErrorKind::NotFound) => {
            Failure::NoServer(format!("no server is known ({} does not exist): {cure}", path.display()))
        }
        _ => Failure::NoServer(format!("can't read the kubeconfig {}: {e}", path.display())),
    })?;
    server_of(&text, &path)
}

fn server_of(text: &str, path: &Path) -> Result<String, Failure> {
    let bad = |what: String| Failure::input(format!("{}: {what}", path.display()));
    let config: Kubeconfig =
        serde_saphyr::from_str(text).map_err(|e| bad(format!("it is not a kubeconfig: {}", e.without_snippet())))?;
    let cluster = match &config.current_context {
        Some(current) => {
            let found = config.contexts.iter().find(|c| c.name == *current);
            &found
                .ok_or_else(|| bad(format!("its current-context {current:?} is not among its contexts")))?
                .context
                .cluster
        }
        // Without contexts the only cluster is meant.
        None => match &config.clusters[..] {
            [only] => &only.name,
            _ => return Err(bad("it has no current-context".into())),
        },
    };
    let found = config.clusters.iter().find(|c| c.name == *cluster);
    Ok(found.ok_or_else(|| bad(format!("its cluster {cluster:?} is not among its clusters")))?.cluster.server.clone())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TWO: &str = "apiVersion: v1\nkind: Config\ncurrent-context: b\ncontexts:\n- {name: a, context: {cluster: ca, user: u}}\n\
                       - {name: b, context: {cluster: cb}}\nclusters:\n- {name: ca, cluster: {server: 'http://a'}}\n\
                       - {name: cb, cluster: {server: 'http://b'}}\n";

    fn read(text: &str) -> Result<String, String> {
        server_of(text, Path::new("kc")).map_err(|e| e.to_string())
    }

    #[test]
    fn the_current_context_names_the_server() {
        assert_eq!(read(TWO).unwrap(), "http://b");
        assert_eq!(read(&TWO.replace("current-context: b", "current-context: a")).unwrap(), "http://a");
    }

    #[test]
    fn a_kubeconfig_that_does_not_lead_to_a_server_says_where_it_ends() {
        let gone = read(&TWO.replace("current-context: b", "current-context: c")).unwrap_err();
        assert_eq!(gone, "kc: its current-context \"c\" is not among its contexts");
        assert_eq!(read(&TWO.replace("current-context: b\n", "")).unwrap_err(), "kc: it has no current-context");
        let cut = read(&TWO.replace("- {name: cb, cluster: {server: 'http://b'}}\n", "")).unwrap_err();
        assert_eq!(cut, "kc: its cluster \"cb\" is not among its clusters");
        assert!(read("[1, 2]").unwrap_err().starts_with("kc: it is not a kubeconfig: "));
    }
}
