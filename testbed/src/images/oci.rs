//! An image as one archive: the OCI image layout (image-spec 1.0), its layers uncompressed.

use std::fs::File;
use std::io::{self, Write};

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::layers::Made;
use super::tape::Tape;

/// Writes the image of these layers, lowest first, under this name.
pub(super) fn write(out: &mut impl Write, name: &str, settings: &Value, layers: &[&Made]) -> io::Result<()> {
    let digests: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", layer.sha256)).collect();
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let configuration = json!({
        "architecture": architecture, "os": "linux", "config": settings,
        "rootfs": {"type": "layers", "diff_ids": digests},
    });
    let configuration = configuration.to_string();
    let kind = |what: &str| format!("application/vnd.oci.image.{what}");
    let described = layers
        .iter()
        .zip(&digests)
        .map(|(layer, digest)| json!({"mediaType": kind("layer.v1.tar"), "digest": digest, "size": layer.bytes}));
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": kind("manifest.v1+json"),
        "config": description(&kind("config.v1+json"), &configuration),
        "layers": described.collect::<Vec<_>>(),
    });
    let manifest = manifest.to_string();
    let mut entry = description(&kind("manifest.v1+json"), &manifest);
    entry["annotations"] = json!({
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name.rsplit_once(':').map_or("latest", |(_, tag)| tag),
    });
    let index = json!({"schemaVersion": 2, "manifests": [entry]}).to_string();

    let mut tape = Tape::new(out);
    let mut text = |name: &str, text: &str| tape.file(name, 0o644, text.len() as u64, text.as_bytes());
    text("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    text("index.json", &index)?;
    text(&blob(&sha256(&configuration)), &configuration)?;
    text(&blob(&sha256(&manifest)), &manifest)?;
    for layer in layers {
        tape.file(&blob(&layer.sha256), 0o644, layer.bytes, File::open(&layer.archive)?)?;
    }
    tape.finish()
}

fn description(kind: &str, text: &str) -> Value {
    json!({"mediaType": kind, "digest": format!("sha256:{}", sha256(text)), "size": text.len()})
}

fn blob(sha256: &str) -> String {
    format!("blobs/sha256/{sha256}")
}

fn sha256(text: &str) -> String {
    hex(digest(&SHA256, text.as_bytes()).as_ref())
}

/// Bytes as two digits each.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
