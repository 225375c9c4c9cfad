//! Streams of pages and of tokens beside an agent's control stream, over real QUIC on loopback; the test is the agent.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use protocol::control::{AgentMessage, Opening, PageAnswer, PageRequest};
use protocol::ids::{AttemptId, ClusterName, ReplicaId};
use protocol::quic::{
    AGENT_ALPN, Credentials, Identity, client_config, read_frame, replica_server_name, server_config, write_frame,
};
use protocol::token::{TokenAnswer, TokenRequest};
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{AgentLink, Event, INBOX, accept, open_page};
use crate::handle::{NoPage, Page};
use crate::identity::ca::Ca;
use crate::replica::Input;

const SOON: Duration = Duration::from_secs(20);
/// More pages than an agent opens for one link, each of which has its window full.
const PAGES: usize = 40;

fn attempt() -> AttemptId {
    "00000000-0000-0000-0000-000000000001-1".parse().unwrap()
}

/// A coordinator's end of a session, and the agent's.
struct Scene {
    link: AgentLink,
    inbox: mpsc::Receiver<Event>,
    agent: Connection,
    control: SendStream,
    stop: CancellationToken,
    _endpoints: [Endpoint; 2],
    _folder: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Ca::open(folder.path()).unwrap();
        let cluster = ClusterName::new("eu-1").unwrap();
        let of = |identity: &Identity| Credentials::load(&authority.issue(identity).unwrap()).unwrap();
        let (replica, agent) = (of(&Identity::Replica(ReplicaId(1))), of(&Identity::Cluster(cluster)));
        let server = server_config(&replica, &[AGENT_ALPN]).unwrap();
        let server = Endpoint::server(server, "127.0.0.1:0".parse().unwrap()).unwrap();
        let (told, mut inbox) = mpsc::channel(INBOX);
        let stop = CancellationToken::new();
        tokio::spawn(accept(server.clone(), BTreeSet::new(), told, None, TaskTracker::new(), stop.clone()));
        let client = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let (config, name) = (client_config(&agent, AGENT_ALPN).unwrap(), replica_server_name(ReplicaId(1)));
        let agent = client.connect_with(config, server.local_addr().unwrap(), &name).unwrap().await.unwrap();
        let (mut control, _) = agent.open_bi().await.unwrap();
        write_frame(&mut control, &AgentMessage::LeaseRequest { nonce: 1 }).await.unwrap();
        let Some(Event::Agent(_, link)) = inbox.recv().await else { panic!("no session") };
        let mut scene = Self { link, inbox, agent, control, stop, _endpoints: [server, client], _folder: folder };
        assert_eq!(scene.heard().await, 1);
        scene
    }

    /// The next lease that the agent asks for.
    async fn heard(&mut self) -> u64 {
        let heard = async {
            loop {
                if let Event::Input(Input::Agent(_, AgentMessage::LeaseRequest { nonce })) =
                    self.inbox.recv().await.unwrap()
                {
                    return nonce;
                }
            }
        };
        tokio::time::timeout(SOON, heard).await.expect("the control stream stands still")
    }

    /// Has a page opened; the agent answers so, and goes on with its end of it.
    async fn page(&self, answer: PageAnswer) -> (Result<Page, NoPage>, SendStream, RecvStream) {
        let answered = async {
            let (mut send, mut receive) = self.agent.accept_bi().await.unwrap();
            let opening = read_frame::<Opening>(&mut receive).await.unwrap().unwrap();
            assert_eq!(opening, Opening::Page(PageRequest { attempt: attempt() }));
            write_frame(&mut send, &answer).await.unwrap();
            (send, receive)
        };
        let opened = open_page(self.link.clone(), PageRequest { attempt: attempt() });
        let both = tokio::time::timeout(SOON, async { tokio::join!(opened, answered) }).await;
        let (opened, (send, receive)) = both.expect("the link stands still");
        (opened, send, receive)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn pages_that_nobody_reads_do_not_keep_leases_from_coming() {
    let mut scene = Scene::new().await;
    let (mut unread, mut floods) = (vec![], vec![]);
    for _ in 0..PAGES {
        let (page, mut send, receive) = scene.page(PageAnswer::Opened { token: None }).await;
        unread.push(page.unwrap());
        floods.push(tokio::spawn(async move {
            // Until its window is full.
            let full = tokio::time::timeout(Duration::from_secs(2), send.write_all(&vec![7; 8 << 20])).await;
            (full.is_err(), send, receive)
        }));
    }
    let mut ends = vec![];
    for flood in floods {
        let (full, send, receive) = flood.await.unwrap();
        assert!(full, "a page that nobody reads was taken whole");
        ends.push((send, receive));
    }
    write_frame(&mut scene.control, &AgentMessage::LeaseRequest { nonce: 2 }).await.unwrap();
    assert_eq!(scene.heard().await, 2);
    // One that is read again goes on.
    let mut page = unread.pop().unwrap();
    let (mut send, _receive) = ends.pop().unwrap();
    let reading = async {
        let mut piece = vec![0; 1 << 16];
        while !piece.contains(&8) {
            assert!(page.bytes.read(&mut piece).await.unwrap() > 0);
        }
    };
    let going_on = async { tokio::join!(reading, async { send.write_all(&[8; 1024]).await.unwrap() }) };
    tokio::time::timeout(SOON, going_on).await.unwrap();
}

#[tokio::test]
async fn ends_are_passed_on_and_what_is_dropped_breaks_off() {
    let scene = Scene::new().await;
    let opened = || PageAnswer::Opened { token: Some("secret".into()) };
    let (page, mut send, mut receive) = scene.page(opened()).await;
    let mut page = page.unwrap();
    assert_eq!(page.token.as_deref(), Some("secret"));
    page.bytes.write_all(b"question").await.unwrap();
    page.bytes.shutdown().await.unwrap();
    assert_eq!(receive.read_to_end(64).await.unwrap(), b"question");
    send.write_all(b"answer").await.unwrap();
    send.finish().unwrap();
    let mut heard = String::new();
    page.bytes.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "answer");

    // Before its end, it is no end.
    let (page, mut send, mut receive) = scene.page(opened()).await;
    drop(page);
    let told = async {
        assert!(receive.read_to_end(64).await.is_err());
        while send.write_all(b"still there?").await.is_ok() {}
    };
    tokio::time::timeout(SOON, told).await.unwrap();
    let (page, mut send, _receive) = scene.page(opened()).await;
    send.write_all(b"ans").await.unwrap();
    send.reset(1u32.into()).unwrap();
    assert!(page.unwrap().bytes.read_to_end(&mut vec![]).await.is_err());
}

#[tokio::test]
async fn an_agents_refusal_and_its_absence_are_told_apart() {
    let scene = Scene::new().await;
    let (page, ..) = scene.page(PageAnswer::Refused { reason: "it is not up".into() }).await;
    assert_eq!(page.err(), Some(NoPage::Refused("it is not up".into())));
    let gone = open_page(scene.link.clone(), PageRequest { attempt: attempt() });
    let (gone, ()) = tokio::join!(gone, async { scene.agent.close(0u32.into(), b"gone") });
    assert!(matches!(gone.err(), Some(NoPage::NoAgent(_))));
}

#[tokio::test]
async fn agents_ask_for_tokens_beside_their_control_stream() {
    let scene = Scene::new().await;
    let open = async || scene.agent.open_bi().await.unwrap();
    // What is no question ends its own stream and nothing else.
    let (mut send, mut receive) = open().await;
    send.write_all(b"not a frame at all").await.unwrap();
    let silent = tokio::time::timeout(SOON, receive.read_to_end(1024)).await.unwrap();
    assert!(silent.is_err() || silent.is_ok_and(|bytes| bytes.is_empty()));
    // More than are answered at once.
    for _ in 0..40 {
        let (mut send, mut receive) = open().await;
        write_frame(&mut send, &TokenRequest { attempt: attempt(), audience: "vault".into() }).await.unwrap();
        let answer = tokio::time::timeout(SOON, read_frame::<TokenAnswer>(&mut receive)).await.unwrap().unwrap();
        let Some(TokenAnswer::Refused { reason }) = answer else { panic!("{answer:?}") };
        assert!(reason.contains("--workload-issuer"), "{reason}");
    }
}
