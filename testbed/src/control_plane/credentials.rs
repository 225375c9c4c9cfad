//! Who is who in one control plane: its certificate authority, the servers' certificate, the key that signs service
//! accounts' tokens, a token for each user, and a kubeconfig for each token.

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use serde_json::json;

use super::settings::Component;
use crate::node::NodeFiles;

/// The first address of the services' range: the API server's own service.
pub(super) const SERVICE_RANGE: &str = "10.96.0.0/16";
const API_SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));

/// Who may speak to the API server. The names stand in the audit log, so that tests know who did what.
const USERS: [(&str, &str, &str); 9] = [
    // file of the kubeconfig, user, groups
    ("kubeconfig", "admin", "system:masters"),
    ("controller-manager.kubeconfig", "system:kube-controller-manager", ""),
    ("scheduler.kubeconfig", "system:kube-scheduler", ""),
    ("kwok.kubeconfig", KWOK_USER, "system:masters"),
    ("coredns.kubeconfig", "coredns", "system:masters"),
    ("kuberay-operator.kubeconfig", "kuberay-operator", "system:masters"),
    ("spark-operator.kubeconfig", "spark-operator", "system:masters"),
    ("kubelet.kubeconfig", KUBELET_USER, "system:nodes"),
    ("kube-proxy.kubeconfig", "system:kube-proxy", ""),
];
/// A kubelet's rights are those of the node whose name is in its own.
const KUBELET_USER: &str = "system:node:real-0";
/// kwok's name in the audit log.
pub(super) const KWOK_USER: &str = "kwok";

/// Where a control plane's files lie.
#[derive(Debug, Clone)]
pub(super) struct Files {
    folder: PathBuf,
}

impl Files {
    pub(super) fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Those of the real node.
    pub(super) fn node(&self) -> NodeFiles {
        NodeFiles::of(&self.folder)
    }

    /// The kubeconfig of a component that speaks to the API server.
    pub(super) fn kubeconfig_of(&self, component: Component) -> PathBuf {
        self.at(match component {
            Component::ControllerManager => "controller-manager.kubeconfig",
            Component::Scheduler => "scheduler.kubeconfig",
            Component::Kwok => "kwok.kubeconfig",
            Component::CoreDns => "coredns.kubeconfig",
            Component::KubeRay => "kuberay-operator.kubeconfig",
            Component::SparkOperator => "spark-operator.kubeconfig",
            Component::Kubelet => "kubelet.kubeconfig",
            Component::KubeProxy => "kube-proxy.kubeconfig",
            Component::Etcd | Component::ApiServer => "kubeconfig",
            Component::NodeNetwork | Component::Node | Component::Containerd => "kubeconfig",
        })
    }
}

/// Why credentials could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file could not be written.
    #[error("{file}: {cause}")]
    File {
        /// The file.
        file: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A certificate could not be made.
    #[error("the control plane's certificates: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// Makes all of it, unless the folder has it from before. The kubeconfigs are written anew: the port may be another.
pub(super) fn provide(files: &Files, api_server: SocketAddrV4) -> Result<(), CredentialsError> {
    if !files.at("tokens.csv").exists() {
        make(files, *api_server.ip())?;
    }
    let read = |name: &str| {
        let file = files.at(name);
        fs::read_to_string(&file).map_err(|cause| CredentialsError::File { file, cause })
    };
    let tokens = read("tokens.csv")?;
    for (name, user, _) in USERS {
        let token = tokens.lines().find_map(|line| {
            let (token, rest) = line.split_once(',')?;
            rest.starts_with(&format!("{user},")).then_some(token)
        });
        let file = files.at(name);
        let Some(token) = token else {
            let cause = io::Error::other(format!("tokens.csv has no {user}; delete the folder to begin anew"));
            return Err(CredentialsError::File { file, cause });
        };
        write_private(&file, &kubeconfig(&files.at("ca.crt"), api_server, user, token))?;
    }
    Ok(())
}

fn make(files: &Files, api_server: Ipv4Addr) -> Result<(), CredentialsError> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "tidewater test bed");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    write_private(&files.at("ca.crt"), &ca.self_signed(&ca_key)?.pem())?;
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate()?;
    let mut server = CertificateParams::default();
    server.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    for name in ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"] {
        server.subject_alt_names.push(SanType::DnsName(Ia5String::try_from(name)?));
    }
    server.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    server.subject_alt_names.push(SanType::IpAddress(API_SERVICE));
    if !api_server.is_loopback() {
        server.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(api_server)));
    }
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    write_private(&files.at("server.crt"), &server.signed_by(&key, &issuer)?.pem())?;
    write_private(&files.at("server.key"), &key.serialize_pem())?;

    // The API server's own, by which a kubelet knows it.
    let key = KeyPair::generate()?;
    let mut client = CertificateParams::default();
    client.distinguished_name.push(DnType::CommonName, "kube-apiserver-kubelet-client");
    client.distinguished_name.push(DnType::OrganizationName, "system:masters");
    client.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    write_private(&files.at("kubelet-client.crt"), &client.signed_by(&key, &issuer)?.pem())?;
    write_private(&files.at("kubelet-client.key"), &key.serialize_pem())?;

    let accounts = KeyPair::generate()?;
    write_private(&files.at("service-accounts.key"), &accounts.serialize_pem())?;
    // Apart, since the API server reads no public key out of a PKCS #8 one.
    write_private(&files.at("service-accounts.pub"), &accounts.public_key_pem())?;

    let tokens = USERS.map(|(_, user, groups)| {
        // 122 random bits.
        let token = uuid::Uuid::new_v4().simple();
        format!("{token},{user},{user},\"{groups}\"\n")
    });
    // Last: its presence says that the folder is whole.
    write_private(&files.at("tokens.csv"), &tokens.concat())
}

fn kubeconfig(ca: &Path, api_server: SocketAddrV4, user: &str, token: &str) -> String {
    let server = format!("https://{api_server}");
    // JSON is YAML, and needs no care for what a path may hold.
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "testbed", "cluster": {"server": server, "certificate-authority": ca}}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": user}}],
        "current-context": "testbed",
    });
    format!("{config:#}\n")
}

/// Writes a file that only its owner may read, whole or not at all.
pub(super) fn write_private(file: &Path, text: &str) -> Result<(), CredentialsError> {
    let failed = |cause| CredentialsError::File { file: file.to_owned(), cause };
    let half = file.with_extension("half");
    let mut out =
        fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&half).map_err(failed)?;
    out.write_all(text.as_bytes()).map_err(failed)?;
    fs::rename(&half, file).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::NODE_NAME;

    fn loopback(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
    }

    #[test]
    fn the_kubelet_has_the_name_of_its_node() {
        assert_eq!(KUBELET_USER, format!("system:node:{NODE_NAME}"));
    }

    #[test]
    fn a_folder_keeps_its_authority_and_its_tokens() {
        let dir = tempfile::tempdir().expect("a folder");
        let files = Files::of(dir.path());
        provide(&files, loopback(20_001)).expect("made");
        let read = |name: &str| fs::read_to_string(files.at(name)).expect("there");
        let before = (read("ca.crt"), read("tokens.csv"));
        assert!(read("kubeconfig").contains("https://127.0.0.1:20001"));
        provide(&files, loopback(20_002)).expect("found");
        assert_eq!((read("ca.crt"), read("tokens.csv")), before);
        assert!(read("kubeconfig").contains("https://127.0.0.1:20002"));
    }

    #[test]
    fn every_user_has_a_token_of_its_own() {
        let dir = tempfile::tempdir().expect("a folder");
        let files = Files::of(dir.path());
        provide(&files, loopback(20_001)).expect("made");
        let tokens = fs::read_to_string(files.at("tokens.csv")).expect("there");
        let all: std::collections::BTreeSet<&str> = tokens.lines().filter_map(|l| l.split(',').next()).collect();
        assert_eq!(all.len(), USERS.len());
    }
}
