//! TLS 1.3 both ways with one CA, and QUIC's own settings. The crypto provider (ring) is passed, never installed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, IdleTimeout, ServerConfig, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls::client::WantsClientCert;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Between coordinator replicas.
pub const PEER_ALPN: &[u8] = b"tidewater-peer/1";
/// From an agent to a coordinator replica.
pub const AGENT_ALPN: &[u8] = b"tidewater-agent/1";
/// From a node to its cluster's agent.
pub const NODE_ALPN: &[u8] = b"tidewater-node/1";

/// A connection without a word for this long is over.
const IDLE: Duration = Duration::from_secs(10);
/// A word is said at least this often.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// Most bytes in flight on one stream, and that are sent and not acknowledged on all of a connection.
const STREAM_WINDOW: u32 = 1024 * 1024;
const SEND_WINDOW: u32 = 4 * 1024 * 1024;
/// Streams of each kind that an end may have open.
const STREAMS: u32 = 64;
/// Most bytes that have come on a connection and are not read yet. Readers of logs and pages may stand still: however many do, there is room
/// for the control stream, and with it for leases, beside all of them.
const CONNECTION_WINDOW: u32 = (STREAMS + 4) * STREAM_WINDOW;
/// The same for all that a node sends, and before it is known who it is: a token has room in it.
const NODE_WINDOW: u32 = 256 * 1024;
const STRANGER_WINDOW: u32 = 32 * 1024;

/// A certificate with its key, and the CA that the other end must have.
#[derive(Debug)]
pub struct Credentials {
    /// The CA's certificate.
    pub ca: CertificateDer<'static>,
    /// This end's certificate.
    pub certificate: CertificateDer<'static>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

/// Why TLS can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or is no PEM.
    #[error("{file}: {cause}; it must be a PEM file (ca.pem, cert.pem and key.pem make an identity)")]
    File {
        /// The file.
        file: String,
        /// What is wrong with it.
        cause: String,
    },
    /// rustls or quinn refused the settings.
    #[error("TLS set-up: {0}")]
    Setup(String),
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self { ca: self.ca.clone(), certificate: self.certificate.clone(), key: self.key.clone_key() }
    }
}

impl Credentials {
    /// Reads `ca.pem`, `cert.pem` and `key.pem` of a folder.
    pub fn load(folder: &Path) -> Result<Self, TlsError> {
        let (ca, cert, key) = (folder.join("ca.pem"), folder.join("cert.pem"), folder.join("key.pem"));
        Ok(Self {
            ca: CertificateDer::from_pem_file(&ca).map_err(|e| bad(&ca, e))?,
            certificate: CertificateDer::from_pem_file(&cert).map_err(|e| bad(&cert, e))?,
            key: PrivateKeyDer::from_pem_file(&key).map_err(|e| bad(&key, e))?,
        })
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, TlsError> {
        roots(&self.ca)
    }
}

fn bad(file: &Path, cause: rustls_pki_types::pem::Error) -> TlsError {
    TlsError::File { file: file.display().to_string(), cause: cause.to_string() }
}

fn roots(ca: &CertificateDer<'static>) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).map_err(|e| TlsError::Setup(format!("the CA's certificate: {e}")))?;
    Ok(Arc::new(roots))
}

fn setup(error: impl ToString) -> TlsError {
    TlsError::Setup(error.to_string())
}

/// QUIC's settings. Windows are what may be waiting, not what is kept for it: an idle connection costs tens of KiB.
pub fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE).expect("10 s fits a varint")))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(SEND_WINDOW))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS));
    config
}

/// Who may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visitors {
    /// Whoever has a certificate of the federation's CA.
    Certified,
    /// Those, and others without any: who they are is still to be found out.
    Anybody,
}

/// For the end that accepts connections of these kinds on one socket.
pub fn server_config(credentials: &Credentials, alpns: &[&[u8]]) -> Result<ServerConfig, TlsError> {
    server(credentials, alpns, Visitors::Certified, transport())
}

/// For the end that accepts nodes. A visitor may open one stream one way, and send little on it, until it is let in: what it may do from then on
/// is for whoever lets it in to say ([`welcome`]).
pub fn node_server_config(credentials: &Credentials, visitors: Visitors) -> Result<ServerConfig, TlsError> {
    let mut config = transport();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(1))
        .stream_receive_window(VarInt::from_u32(NODE_WINDOW))
        .receive_window(VarInt::from_u32(STRANGER_WINDOW))
        .datagram_receive_buffer_size(None);
    server(credentials, &[NODE_ALPN], visitors, config)
}

/// Lets a node that connected open the stream of its frames.
pub fn welcome(connection: &Connection) {
    connection.set_receive_window(VarInt::from_u32(NODE_WINDOW));
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(1));
}

fn server(
    credentials: &Credentials,
    alpns: &[&[u8]],
    visitors: Visitors,
    transport: TransportConfig,
) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(credentials.roots()?, provider.clone());
    let verifier = match visitors {
        Visitors::Certified => verifier,
        Visitors::Anybody => verifier.allow_unauthenticated(),
    };
    let verifier = verifier.build().map_err(setup)?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(setup)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![credentials.certificate.clone()], credentials.key.clone_key())
        .map_err(setup)?;
    tls.alpn_protocols = alpns.iter().map(|alpn| alpn.to_vec()).collect();
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).map_err(setup)?));
    config.transport_config(Arc::new(transport)).migration(false).max_incoming(256);
    Ok(config)
}

/// For the end that opens connections.
pub fn client_config(credentials: &Credentials, alpn: &[u8]) -> Result<ClientConfig, TlsError> {
    let tls = client_of(&credentials.ca)?
        .with_client_auth_cert(vec![credentials.certificate.clone()], credentials.key.clone_key())
        .map_err(setup)?;
    client(tls, alpn)
}

/// For the end that opens connections to an end with a certificate of this CA, and has none itself.
pub fn client_config_without_certificate(ca: &CertificateDer<'static>, alpn: &[u8]) -> Result<ClientConfig, TlsError> {
    client(client_of(ca)?.with_no_client_auth(), alpn)
}

/// Reads a CA's certificate.
pub fn read_ca(file: &Path) -> Result<CertificateDer<'static>, TlsError> {
    CertificateDer::from_pem_file(file).map_err(|e| bad(file, e))
}

fn client_of(
    ca: &CertificateDer<'static>,
) -> Result<rustls::ConfigBuilder<rustls::ClientConfig, WantsClientCert>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider);
    let tls = tls.with_protocol_versions(&[&rustls::version::TLS13]).map_err(setup)?;
    Ok(tls.with_root_certificates(roots(ca)?))
}

fn client(mut tls: rustls::ClientConfig, alpn: &[u8]) -> Result<ClientConfig, TlsError> {
    tls.alpn_protocols = vec![alpn.to_vec()];
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).map_err(setup)?));
    config.transport_config(Arc::new(transport()));
    Ok(config)
}
