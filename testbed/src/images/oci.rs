//! An image as one archive: the OCI image layout (image-spec 1.0), its layers uncompressed, with the list beside it by which older `docker
//! load`s find the same blobs.

use std::fs::File;
use std::io::{self, Write};

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::layers::Made;
use super::tape::Tape;

/// Writes the image of these layers, lowest first, under this name. Returns its digest, `sha256:…`.
pub(super) fn write(out: &mut impl Write, name: &str, settings: &Value, layers: &[&Made]) -> io::Result<String> {
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
    let blobs: Vec<String> = layers.iter().map(|layer| blob(&layer.sha256)).collect();
    let listed = json!([{"Config": blob(&sha256(&configuration)), "RepoTags": [name], "Layers": blobs}]).to_string();

    let mut tape = Tape::new(out);
    let mut text = |name: &str, text: &str| tape.file(name, 0o644, text.len() as u64, text.as_bytes());
    text("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    text("index.json", &index)?;
    text("manifest.json", &listed)?;
    text(&blob(&sha256(&configuration)), &configuration)?;
    text(&blob(&sha256(&manifest)), &manifest)?;
    for layer in layers {
        tape.file(&blob(&layer.sha256), 0o644, layer.bytes, File::open(&layer.archive)?)?;
    }
    tape.finish()?;
    Ok(format!("sha256:{}", sha256(&manifest)))
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    #[test]
    fn every_blob_has_the_name_of_what_it_holds_and_every_reference_is_there() {
        let dir = tempfile::tempdir().expect("a folder");
        let archive = dir.path().join("layer.tar");
        fs::write(&archive, "a layer").expect("written");
        let layer = Made { archive, sha256: sha256("a layer"), bytes: 7, root: dir.path().to_owned() };
        let mut image = vec![];
        write(&mut image, "localhost/x:9", &json!({"Cmd": ["/bin/sh"]}), &[&layer, &layer]).expect("written");
        let (file, tree) = (dir.path().join("image.tar"), dir.path().join("tree"));
        fs::write(&file, image).expect("written");
        fs::create_dir(&tree).expect("made");
        let tar = Command::new("tar").arg("-xf").arg(&file).arg("-C").arg(&tree).status();
        assert!(tar.expect("tar is there").success());
        let read =
            |place: String| fs::read_to_string(tree.join(&place)).unwrap_or_else(|error| panic!("{place}: {error}"));
        let follow = |description: &Value| {
            let digest = description["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:"));
            let digest = digest.expect("a digest");
            let text = read(blob(digest));
            assert_eq!(sha256(&text), digest);
            assert_eq!(description["size"], text.len());
            text
        };
        let json = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        let index = json(&read("index.json".to_owned()));
        assert_eq!(index["manifests"][0]["annotations"]["io.containerd.image.name"], "localhost/x:9");
        let manifest = json(&follow(&index["manifests"][0]));
        assert_eq!(json(&follow(&manifest["config"]))["config"]["Cmd"][0], "/bin/sh");
        assert_eq!(manifest["layers"].as_array().map(Vec::len), Some(2));
        assert_eq!(follow(&manifest["layers"][1]), "a layer");
    }
}
