//! A client of the cluster's API server, from a kubeconfig or from inside the cluster. TLS is made here, with ring passed to
//! it: kube's own would take whichever provider it finds in the process. No request waits for ever: a connection has 10 s to
//! come about, and a server that is silent for 30 s, before its answer or in the middle of it, counts as gone.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Method;
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use k8s_openapi::ByteString;
use kube::client::{Body, ConfigExt};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::ExposeSecret;
use serde_json::json;
use tokio::time::{Instant, Sleep, sleep};
use tower::{BoxError, ServiceBuilder, service_fn};

use super::leadership::{Gate, Guarded, Shut};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the server may be silent. A watch has to be shorter than this, or it is cut while nothing happens.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long what was sent may go unacknowledged by the server's kernel.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// By which right the agent speaks to its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// A kubeconfig file.
    Kubeconfig {
        /// The file.
        file: PathBuf,
        /// The context in it; left out: its current one.
        context: Option<String>,
    },
    /// The service account of the pod in which the agent runs. Its token is read again each minute.
    InCluster,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig cannot be used.
    #[error("kubeconfig {file}: {cause}")]
    Kubeconfig {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// The service account cannot be used.
    #[error("the pod's service account: {cause}; outside of a cluster give a kubeconfig")]
    InCluster {
        /// What is wrong.
        cause: String,
    },
}

/// Makes a client. Asks nothing of the server yet: it may be away, and come later.
pub async fn connect(access: &Access) -> Result<Client, ClientError> {
    connect_with(access, READ_TIMEOUT, None).await
}

/// A client that changes something only while this gate is open.
pub async fn connect_behind(access: &Access, gate: Arc<Gate>) -> Result<Client, ClientError> {
    connect_with(access, READ_TIMEOUT, Some(gate)).await
}

/// The same for a server that may be silent for so long.
pub(super) async fn connect_with(
    access: &Access,
    patience: Duration,
    gate: Option<Arc<Gate>>,
) -> Result<Client, ClientError> {
    match access {
        Access::Kubeconfig { file, context } => {
            let wrong = |cause| ClientError::Kubeconfig { file: file.clone(), cause };
            let config = read(file, context.clone()).await.map_err(wrong)?;
            client(&config, patience, gate).map_err(wrong)
        }
        Access::InCluster => {
            let wrong = |cause| ClientError::InCluster { cause };
            let config = Config::incluster().map_err(|e| wrong(with_causes(&e)))?;
            client(&config, patience, gate).map_err(wrong)
        }
    }
}

async fn read(file: &Path, context: Option<String>) -> Result<Config, String> {
    let read = Kubeconfig::read_from(file).map_err(|e| with_causes(&e))?;
    if let Some(context) = &context
        && !read.contexts.iter().any(|known| known.name == *context)
    {
        let known: Vec<&str> = read.contexts.iter().map(|known| &*known.name).collect();
        return Err(format!("it has no context {context:?} (it has {})", known.join(", ")));
    }
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(read, &options).await.map_err(|e| with_causes(&e))
}

fn client(config: &Config, patience: Duration, gate: Option<Arc<Gate>>) -> Result<Client, String> {
    if config.accept_invalid_certs {
        return Err("insecure-skip-tls-verify is not supported; give its certificate-authority instead".to_owned());
    }
    if config.proxy_url.is_some() {
        return Err("proxy-url is not supported; give an address that can be reached without it".to_owned());
    }
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots(config)?);
    let tls = match identity(&config.auth_info)? {
        Some((chain, key)) => tls.with_client_auth_cert(chain, key).map_err(|e| format!("its client-key: {e}"))?,
        None => tls.with_no_client_auth(),
    };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(READ_TIMEOUT));
    // The kernel gives up what nobody acknowledges, also when this process is gone: nothing that was sent arrives much later.
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    let https = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    let https = match &config.tls_server_name {
        Some(name) => {
            let name = name.clone().try_into().map_err(|e| format!("its tls-server-name: {e}"))?;
            https.with_server_name_resolver(hyper_rustls::FixedServerNameResolver::new(name)).enable_http1()
        }
        None => https.enable_http1(),
    };
    let pool = Pool::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(https.wrap_connector(tcp));
    let send = move |request: http::Request<Body>| {
        let shut = request.method() != Method::GET && gate.as_ref().is_some_and(|gate| !gate.is_open());
        let gate = gate.clone();
        let answer = pool.request(request.map(|body| Guarded::new(body, gate)));
        async move {
            if shut {
                return Err(BoxError::from(Shut));
            }
            // Also while the connection is made: TLS has no time limit of its own.
            let answer = tokio::time::timeout(patience, answer).await.map_err(|_| BoxError::from(Silent(patience)))?;
            Ok::<_, BoxError>(answer.map_err(BoxError::from)?.map(|body| Patient::new(body, patience)))
        }
    };
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(|e| with_causes(&e))?)
        .map_err(BoxError::from)
        .service(service_fn(send));
    Ok(Client::new(service, config.default_namespace.clone()))
}

fn roots(config: &Config) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if config.cluster_url.scheme_str() == Some("http") {
        // Such as that of `kubectl proxy`: there is nobody to be sure of.
        return Ok(roots);
    }
    let certificates = config.root_cert.as_ref().ok_or("it has no certificate-authority")?;
    for certificate in certificates {
        let certificate = CertificateDer::from(certificate.clone());
        roots.add(certificate).map_err(|e| format!("its certificate-authority: {e}"))?;
    }
    Ok(roots)
}

type ClientCertificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(auth: &AuthInfo) -> Result<Option<ClientCertificate>, String> {
    let data = auth.client_key_data.as_ref().map(|data| data.expose_secret().to_owned());
    let certificate =
        pem("client-certificate", auth.client_certificate_data.as_deref(), auth.client_certificate.as_deref())?;
    let key = pem("client-key", data.as_deref(), auth.client_key.as_deref())?;
    let (certificate, key) = match (certificate, key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (None, None) => return Ok(None),
        (Some(_), None) => return Err("its user has a client-certificate and no client-key".to_owned()),
        (None, Some(_)) => return Err("its user has a client-key and no client-certificate".to_owned()),
    };
    let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<_, _>>();
    let chain = chain.map_err(|e| format!("its client-certificate: {e}"))?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| format!("its client-key: {e}"))?;
    Ok(Some((chain, key)))
}

/// PEM text, in the kubeconfig itself as base64 or in a file of its own.
fn pem(what: &str, data: Option<&str>, file: Option<&str>) -> Result<Option<Vec<u8>>, String> {
    match (data, file) {
        (Some(data), _) => {
            let decoded = serde_json::from_value::<ByteString>(json!(data));
            decoded.map(|bytes| Some(bytes.0)).map_err(|e| format!("its {what}-data: {e}"))
        }
        (None, Some(file)) => std::fs::read(file).map(Some).map_err(|e| format!("its {what} {file}: {e}")),
        (None, None) => Ok(None),
    }
}

/// An error with what caused it: the outer one alone often says nothing.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// The server said nothing for too long.
#[derive(Debug, thiserror::Error)]
#[error("the API server was silent for {} s", .0.as_secs_f32())]
struct Silent(Duration);

/// An answer's body that fails once the server has been silent for too long.
struct Patient {
    body: Incoming,
    patience: Duration,
    until: Pin<Box<Sleep>>,
}

impl Patient {
    fn new(body: Incoming, patience: Duration) -> Self {
        Self { body, patience, until: Box::pin(sleep(patience)) }
    }
}

impl HttpBody for Patient {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                let until = Instant::now() + self.patience;
                self.until.as_mut().reset(until);
                Poll::Ready(frame.map(|frame| frame.map_err(BoxError::from)))
            }
            Poll::Pending => match self.until.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Some(Err(Silent(self.patience).into()))),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
