//! `tidewater dashboard`: the page that a workload serves itself, on this machine. Each connection to a port of loopback becomes one to the page
//! of the attempt that lives then, so that the address stays though attempts come and go.

mod serve;
mod standing;

use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use protocol::ids::{BadName, Namespace, WorkloadKey, WorkloadName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::key;
use crate::args::Global;
use crate::client::{Client, PageConnection};
use crate::dev::Ended;
use crate::exit::Failure;
use crate::render::{Out, progress};
use crate::server::{PATIENCE_TO_READ, connect};

/// How long a page may take to say its first word.
const FIRST_WORD: Duration = Duration::from_secs(10);

/// Whose page, and where it is to be.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Prints the page's address, and forwards it until Ctrl-C or until the workload has ended: Ray's dashboard, or Spark's UI. \
                        Programs can be run through Ray's dashboard: it asks for the token that is told beside the address, where it has one. \
                        Everybody on this machine can reach the address."
)]
pub struct Args {
    /// The workload, as NAME or NAMESPACE/NAME
    #[arg(value_name = "NAME")]
    workload: Named,
    /// The port of 127.0.0.1 where it is to be; 0 takes any free one
    #[arg(long, default_value_t = 0)]
    port: u16,
}

/// A workload, with its namespace or without.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    namespace: Option<Namespace>,
    name: WorkloadName,
}

impl FromStr for Named {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace.parse()?), name),
            None => (None, text),
        };
        Ok(Self { namespace, name: name.parse()? })
    }
}

impl Named {
    fn key(&self, global: &Global) -> Result<WorkloadKey, Failure> {
        match (&self.namespace, &global.namespace) {
            (Some(namespace), Some(other)) if namespace != other => Err(Failure::input(format!(
                "{namespace}/{} is of namespace {namespace}, and --namespace says {other}: leave one of them out",
                self.name
            ))),
            (Some(namespace), _) => Ok(WorkloadKey { namespace: namespace.clone(), name: self.name.clone() }),
            (None, _) => Ok(key(&self.name, global)),
        }
    }
}

/// Runs the command.
pub async fn run(args: Args, global: &Global, out: &Out) -> anyhow::Result<()> {
    let key = args.workload.key(global)?;
    let client = connect(global, PATIENCE_TO_READ)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).await;
    let listener = listener.map_err(|cause| {
        Failure::input(format!("can't listen at 127.0.0.1:{}: {cause} (leave --port out for any free one)", args.port))
    })?;
    let address = listener.local_addr()?;
    let mut ended = Ended::new()?;
    let reaching = Box::pin(progress::patiently("waiting for the page", reach(&client, &key)));
    let first = tokio::select! {
        first = reaching => first?,
        () = ended.wait() => return Ok(()),
    };
    let visits = serve::Visits::new(client.clone(), key.clone(), out.clone());
    visits.tell(&first);
    // The probe is not kept: nobody visits it.
    let attempt = first.attempt;
    drop(first);
    out.print(&format!("http://{address}/\n"))?;
    tokio::select! {
        over = Box::pin(standing::until_ended(&client, &key, attempt, out)) => over,
        broken = Box::pin(visits.serve(listener)) => broken,
        () = ended.wait() => Ok(()),
    }
}

/// Connects to the page and sees that it answers: who listens beyond a cluster's API server, only an answer tells.
async fn reach(client: &Client, key: &WorkloadKey) -> anyhow::Result<PageConnection> {
    let mut page = client.dashboard(key).await?;
    let asked = async {
        page.bytes.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        page.bytes.read(&mut [0; 1]).await
    };
    let said = match tokio::time::timeout(FIRST_WORD, asked).await {
        Ok(Ok(1)) => return Ok(page),
        Ok(Ok(_)) => "it ends every connection".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it says nothing within {} s", FIRST_WORD.as_secs()),
    };
    let (whose, attempt) = (page_of(&page.framework), page.attempt);
    Err(Failure::Workload(format!("{whose} of attempt {attempt} of {key} does not answer: {said}")).into())
}

/// What a framework's page is called.
fn page_of(framework: &str) -> &'static str {
    match framework {
        "ray" => "Ray's dashboard",
        "spark" => "Spark's UI",
        _ => "the page",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::args::{Cli, Command};

    #[test]
    fn a_workload_is_named_with_its_namespace_or_without() {
        let key = |arguments: &[&str]| {
            let cli = Cli::from_texts(&[&["tidewater", "dashboard"], arguments].concat()).ok()?;
            let Command::Dashboard(args) = cli.command else { panic!("another command") };
            Some(args.workload.key(&cli.global).map(|key| key.to_string()).map_err(|e| e.to_string()))
        };
        assert_eq!(key(&["w"]).unwrap().unwrap(), "default/w");
        assert_eq!(key(&["w", "-n", "vision"]).unwrap().unwrap(), "vision/w");
        assert_eq!(key(&["vision/w"]).unwrap().unwrap(), "vision/w");
        assert_eq!(key(&["vision/w", "-n", "vision"]).unwrap().unwrap(), "vision/w");
        assert!(key(&["vision/w", "-n", "speech"]).unwrap().unwrap_err().contains("leave one of them out"));
        assert_eq!(key(&["a/b/c"]), None);
        assert_eq!(key(&["/w"]), None);
    }
}
