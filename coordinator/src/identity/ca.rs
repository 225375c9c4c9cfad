//! The federation's certificate authority. Makes one certificate for each replica, each cluster's agent and each node, with
//! a SPIFFE id as its only meaning; every link checks it both ways.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use protocol::quic::{Identity, agent_server_name, replica_server_name};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// Why a certificate was not made.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file could not be read or written.
    #[error("{file}: {cause}")]
    File {
        /// The file.
        file: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The CA's files do not make a CA.
    #[error("{folder}: no certificate authority: {cause}; delete ca.pem and ca.key together to begin anew")]
    Damaged {
        /// Where it lies.
        folder: PathBuf,
        /// What is wrong.
        cause: rcgen::Error,
    },
    /// A certificate could not be made.
    #[error("certificate of {identity}: {cause}")]
    Issue {
        /// For whom.
        identity: Identity,
        /// What is wrong.
        cause: rcgen::Error,
    },
}

/// A certificate authority in a folder: `ca.pem` and `ca.key`.
pub struct Ca {
    folder: PathBuf,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    /// Opens the authority of a folder, or makes one there.
    pub fn open(folder: &Path) -> Result<Self, CaError> {
        let (pem_file, key_file) = (folder.join("ca.pem"), folder.join("ca.key"));
        if !pem_file.exists() && !key_file.exists() {
            fs::create_dir_all(folder).map_err(|cause| CaError::File { file: folder.into(), cause })?;
            let (pem, key) = make().map_err(|cause| CaError::Damaged { folder: folder.into(), cause })?;
            write_private(&key_file, &key.serialize_pem())?;
            write_private(&pem_file, &pem)?;
        }
        let read = |file: &Path| fs::read_to_string(file).map_err(|cause| CaError::File { file: file.into(), cause });
        let (pem, key) = (read(&pem_file)?, read(&key_file)?);
        let issuer = KeyPair::from_pem(&key)
            .and_then(|key| Issuer::from_ca_cert_pem(&pem, key))
            .map_err(|cause| CaError::Damaged { folder: folder.into(), cause })?;
        Ok(Self { folder: folder.into(), pem, issuer })
    }

    /// Makes an identity's folder (`ca.pem`, `cert.pem`, `key.pem`) below the authority's, unless it is there; returns it.
    pub fn issue(&self, identity: &Identity) -> Result<PathBuf, CaError> {
        let (name, dns) = match identity {
            Identity::Replica(id) => (format!("replica-{id}"), Some(replica_server_name(*id))),
            Identity::Cluster(cluster) => (format!("cluster-{cluster}"), Some(agent_server_name(cluster))),
            // A cluster's name has no dot, so that no two nodes share a folder. Nobody connects to a node.
            Identity::Node(cluster, node) => (format!("node-{cluster}.{node}"), None),
        };
        let folder = self.folder.join(&name);
        if folder.join("cert.pem").exists() {
            return Ok(folder);
        }
        fs::create_dir_all(&folder).map_err(|cause| CaError::File { file: folder.clone(), cause })?;
        let failed = |cause| CaError::Issue { identity: identity.clone(), cause };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&name);
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(identity.to_string()).map_err(failed)?)];
        if let Some(dns) = dns {
            params.subject_alt_names.push(SanType::DnsName(Ia5String::try_from(dns).map_err(failed)?));
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        write_private(&folder.join("ca.pem"), &self.pem)?;
        write_private(&folder.join("key.pem"), &key.serialize_pem())?;
        // Last: its presence says that the folder is whole.
        write_private(&folder.join("cert.pem"), &certificate.pem())?;
        Ok(folder)
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn make() -> Result<(String, KeyPair), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = named("tidewater");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key))
}

/// Writes a file that only its owner may read, whole or not at all.
fn write_private(file: &Path, text: &str) -> Result<(), CaError> {
    let failed = |cause| CaError::File { file: file.into(), cause };
    let half = file.with_extension("half");
    let mut out =
        fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&half).map_err(failed)?;
    out.write_all(text.as_bytes()).and_then(|()| out.sync_all()).map_err(failed)?;
    fs::rename(&half, file).map_err(failed)
}
