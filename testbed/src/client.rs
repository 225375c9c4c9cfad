//! A client of a cluster, by its kubeconfig. TLS is made here, with ring passed to it: kube's own would take whichever
//! provider it finds in the process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::Uri;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::client::ConfigExt;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::ExposeSecret;
use serde_json::json;
use tower::{BoxError, ServiceBuilder};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The kubeconfig cannot be used.
    #[error("{file}: {cause}")]
    Kubeconfig {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        cause: String,
    },
}

/// A client with the rights of the kubeconfig's current context.
pub async fn connect(kubeconfig: &Path) -> Result<Client, ClientError> {
    let config = read(kubeconfig).await?;
    client(&config).map_err(|cause| ClientError::Kubeconfig { file: kubeconfig.to_owned(), cause })
}

/// Makes a namespace.
pub async fn make_namespace(client: &Client, name: &str) -> kube::Result<()> {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(name.to_owned());
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await.map(drop)
}

/// Makes the account `spark` in a namespace, as which agents call Spark's drivers where nothing else is said, and lets it make executors there:
/// that is for the namespace's owner to do.
pub async fn drivers_may_make_executors(client: &Client, namespace: &str) -> kube::Result<()> {
    let named = || ObjectMeta { name: Some("spark".to_owned()), ..ObjectMeta::default() };
    let account = ServiceAccount { metadata: named(), ..ServiceAccount::default() };
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
    accounts.create(&PostParams::default(), &account).await?;
    let role_ref = RoleRef {
        api_group: "rbac.authorization.k8s.io".to_owned(),
        kind: "ClusterRole".to_owned(),
        name: "edit".to_owned(),
    };
    let subject = Subject {
        kind: "ServiceAccount".to_owned(),
        name: "spark".to_owned(),
        namespace: Some(namespace.to_owned()),
        api_group: None,
    };
    let binding = RoleBinding { metadata: named(), role_ref, subjects: Some(vec![subject]) };
    Api::<RoleBinding>::namespaced(client.clone(), namespace).create(&PostParams::default(), &binding).await.map(drop)
}

/// A client of another server of the same control plane: same authority, no rights.
pub(crate) async fn beside(kubeconfig: &Path, address: Uri) -> Result<Client, ClientError> {
    let mut config = read(kubeconfig).await?;
    config.cluster_url = address;
    config.auth_info = AuthInfo::default();
    client(&config).map_err(|cause| ClientError::Kubeconfig { file: kubeconfig.to_owned(), cause })
}

async fn read(kubeconfig: &Path) -> Result<Config, ClientError> {
    let wrong = |cause: String| ClientError::Kubeconfig { file: kubeconfig.to_owned(), cause };
    let read = Kubeconfig::read_from(kubeconfig).map_err(|e| wrong(e.to_string()))?;
    let options = KubeConfigOptions::default();
    Config::from_custom_kubeconfig(read, &options).await.map_err(|e| wrong(e.to_string()))
}

fn client(config: &Config) -> Result<Client, String> {
    if config.accept_invalid_certs {
        return Err("insecure-skip-tls-verify is not supported; give its certificate-authority instead".to_owned());
    }
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots(config)?);
    let tls = match identity(&config.auth_info)? {
        Some((chain, key)) => tls.with_client_auth_cert(chain, key).map_err(|e| e.to_string())?,
        None => tls.with_no_client_auth(),
    };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let https = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(|e| e.to_string())?)
        .map_err(BoxError::from)
        .service(Pool::builder(TokioExecutor::new()).build(https));
    Ok(Client::new(service, config.default_namespace.clone()))
}

fn roots(config: &Config) -> Result<RootCertStore, String> {
    let certificates = config.root_cert.as_ref().ok_or("it has no certificate-authority")?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let certificate = CertificateDer::from(certificate.clone());
        roots.add(certificate).map_err(|e| format!("its certificate-authority: {e}"))?;
    }
    Ok(roots)
}

type ClientCertificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(auth: &AuthInfo) -> Result<Option<ClientCertificate>, String> {
    let secret = auth.client_key_data.as_ref().map(|data| data.expose_secret().to_owned());
    let certificate =
        pem("client-certificate", auth.client_certificate_data.as_deref(), auth.client_certificate.as_deref())?;
    let key = pem("client-key", secret.as_deref(), auth.client_key.as_deref())?;
    let (Some(certificate), Some(key)) = (certificate, key) else { return Ok(None) };
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
        (None, Some(file)) => std::fs::read(file).map(Some).map_err(|e| format!("{file}: {e}")),
        (None, None) => Ok(None),
    }
}
