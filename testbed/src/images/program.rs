//! An image of one program that is linked with glibc: the program, the libraries that this machine links it with, their licences, and the
//! few files that glibc reads. No shell, no package manager and no root are in it. Starts `ldd` and `strip`; needs no network.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::layers::{Made, checksum};
use super::oci;
use super::tape::Tape;

/// The user and group that the program runs as.
pub const USER: u32 = 65_532;
/// What glibc has had in itself since 2.34 and is asked for by libraries that are older than it, such as NVIDIA's, which a program loads by
/// itself.
const STUBS: [&str; 4] = ["libdl.so.2", "libm.so.6", "libpthread.so.0", "librt.so.1"];
/// The terms of glibc and of GCC's runtime library, as Debian keeps them.
const LICENCES: [&str; 5] = [
    "/usr/share/doc/libc6/copyright",
    "/usr/share/doc/libgcc-s1/copyright",
    "/usr/share/common-licenses/GPL-2",
    "/usr/share/common-licenses/GPL-3",
    "/usr/share/common-licenses/LGPL-2.1",
];

/// An image to be made.
#[derive(Debug, Clone)]
pub struct ProgramImage<'a> {
    /// What a pod's container says in `image`.
    pub reference: &'a str,
    /// The program, which becomes `/usr/bin/NAME` and the image's entry point.
    pub program: &'a Path,
    /// Programs that are linked with nothing, which lie beside it.
    pub beside: &'a [&'a Path],
    /// Its own licence.
    pub licence: &'a Path,
}

/// An image that was made.
#[derive(Debug, Clone)]
pub struct Packed {
    /// One archive, an OCI image layout that `docker load` takes too.
    pub archive: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// The image's digest, `sha256:…`: the same program and libraries have the same.
    pub digest: String,
}

/// Why an image was not made.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A tool did not do it.
    #[error("{tool} {program}: {said}")]
    Tool {
        /// Which.
        tool: &'static str,
        /// On what.
        program: PathBuf,
        /// What it said.
        said: String,
    },
    /// The program is not linked with glibc, or not all of its libraries are here.
    #[error(
        "{program}: {line:?}: its image is made of a program that is linked with libraries that are all on this machine"
    )]
    Libraries {
        /// The program.
        program: PathBuf,
        /// What ldd says.
        line: String,
    },
    /// A program that is to run in any image needs something of its own.
    #[error("{program} is linked with /{library}; it is to run wherever it is copied to, so build it statically")]
    Linked {
        /// The program.
        program: PathBuf,
        /// A library.
        library: String,
    },
    /// A file can't be read or written.
    #[error("{place}: {cause}")]
    File {
        /// Which.
        place: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The terms of what would be handed on are not here.
    #[error(
        "{0}: the licence of a library that goes into the image is not there; make it on Debian or Ubuntu, with their documentation"
    )]
    Licence(PathBuf),
}

/// What goes into the image's one layer: where, and which file of this machine.
type Files = BTreeSet<(String, PathBuf)>;

/// Makes the image in this folder, as NAME-VERSION.tar by its reference.
pub fn pack(image: &ProgramImage<'_>, folder: &Path) -> Result<Packed, PackError> {
    let unusable = |place: &Path| {
        let place = place.to_owned();
        move |cause| PackError::File { place, cause }
    };
    fs::create_dir_all(folder).map_err(unusable(folder))?;
    let name = image.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stripped = folder.join(format!("{name}.stripped"));
    strip(image.program, &stripped)?;
    let mut files = linked(image.program)?;
    files.insert((format!("usr/bin/{name}"), stripped.clone()));
    let mut parts = vec![stripped];
    for program in image.beside {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let stripped = folder.join(format!("{name}.stripped"));
        strip(program, &stripped)?;
        if let Some((library, _)) = linked(program)?.into_iter().next() {
            return Err(PackError::Linked { program: program.to_path_buf(), library });
        }
        files.insert((format!("usr/bin/{name}"), stripped.clone()));
        parts.push(stripped);
    }
    files.insert((format!("usr/share/doc/{name}/LICENSE"), image.licence.to_owned()));
    for licence in LICENCES.map(PathBuf::from) {
        if !licence.exists() {
            return Err(PackError::Licence(licence));
        }
        files.insert((in_image(&licence), licence));
    }
    let layer = folder.join(format!("{name}.layer"));
    write_layer(&files, &layer).map_err(unusable(&layer))?;
    let (sha256, bytes) = checksum(&layer).map_err(unusable(&layer))?;
    let made = Made { archive: layer.clone(), sha256, bytes, root: PathBuf::new() };
    let archive = folder.join(format!("{}.tar", image.reference.rsplit('/').next().unwrap_or(&name).replace(':', "-")));
    let write = || {
        let mut out = BufWriter::new(File::create(&archive)?);
        oci::write(&mut out, image.reference, &settings(&name), &[&made])
    };
    let digest = write().map_err(unusable(&archive))?;
    parts.push(layer);
    for part in parts {
        fs::remove_file(&part).map_err(unusable(&part))?;
    }
    let bytes = fs::metadata(&archive).map_err(unusable(&archive))?.len();
    Ok(Packed { archive, bytes, digest })
}

/// The image configuration's `config`.
fn settings(name: &str) -> Value {
    json!({
        "Entrypoint": [format!("/usr/bin/{name}")],
        "Env": ["PATH=/usr/bin"],
        "User": format!("{USER}:{USER}"),
        "WorkingDir": "/",
    })
}

/// The program without what only a debugger reads.
fn strip(program: &Path, to: &Path) -> Result<(), PackError> {
    run("strip", Command::new("strip").arg("--strip-debug").arg("-o").arg(to).arg(program), program).map(drop)
}

fn run(tool: &'static str, command: &mut Command, program: &Path) -> Result<String, PackError> {
    let failed = |said: String| PackError::Tool { tool, program: program.to_owned(), said };
    let output = command.env("LC_ALL", "C").output().map_err(|cause| failed(cause.to_string()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(failed(format!("{} {}", text(&output.stdout), text(&output.stderr)))),
    }
}

/// The loader and the libraries, at the places at which this machine has them.
fn linked(program: &Path) -> Result<Files, PackError> {
    let said = run("ldd", Command::new("ldd").arg(program), program)?;
    let mut libraries =
        libraries(&said).map_err(|line| PackError::Libraries { program: program.to_owned(), line: line.to_owned() })?;
    let libc = libraries.iter().find(|place| place.ends_with("libc.so.6"));
    let folder = libc.and_then(|place| place.parent()).map(Path::to_owned);
    let stubs = folder.into_iter().flat_map(|folder| STUBS.map(|stub| folder.join(stub)));
    libraries.extend(stubs.filter(|stub| stub.exists()).collect::<Vec<_>>());
    Ok(libraries.into_iter().map(|place| (in_image(&place), place)).collect())
}

/// The files that ldd names. The error is the line that is none.
fn libraries(said: &str) -> Result<BTreeSet<PathBuf>, &str> {
    let mut found = BTreeSet::new();
    if said.trim() == "statically linked" {
        return Ok(found);
    }
    for line in said.lines().map(str::trim).filter(|line| !line.starts_with("linux-vdso")) {
        let place = line.split_once(" => ").map_or(line, |(_, place)| place);
        match place.split_once(" (0x") {
            Some((place, _)) if place.starts_with('/') => drop(found.insert(PathBuf::from(place))),
            _ => return Err(line),
        }
    }
    if found.is_empty() { Err(said) } else { Ok(found) }
}

fn in_image(place: &Path) -> String {
    place.to_string_lossy().trim_start_matches('/').to_owned()
}

fn write_layer(files: &Files, layer: &Path) -> io::Result<()> {
    let mut tape = Tape::new(BufWriter::new(File::create(layer)?));
    let mut folders: BTreeSet<String> = ["etc/".to_owned()].into();
    for (place, _) in files {
        folders.extend(place.match_indices('/').map(|(at, _)| place[..=at].to_owned()));
    }
    // Those above others come first.
    for folder in &folders {
        tape.folder(folder, 0o755)?;
    }
    tape.folder("tmp/", 0o1777)?;
    let texts = [
        ("etc/passwd", format!("nonroot:x:{USER}:{USER}:nonroot:/:/sbin/nologin\n")),
        ("etc/group", format!("nonroot:x:{USER}:\n")),
        ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n".to_owned()),
    ];
    for (place, text) in texts {
        tape.file(place, 0o644, text.len() as u64, text.as_bytes())?;
    }
    for (place, file) in files {
        let runs = place.starts_with("usr/bin/") || place.contains(".so");
        let content = File::open(file)?;
        let size = content.metadata()?.len();
        tape.file(place, if runs { 0o755 } else { 0o644 }, size, content)?;
    }
    tape.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_and_the_libraries_are_found_in_what_ldd_says() {
        let said = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibgcc_s.so.1 => /lib/x/libgcc_s.so.1 (0x00007f)\n\t\
                    libc.so.6 => /lib/x/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)";
        let found = libraries(said).expect("all are there");
        let expected = ["/lib/x/libc.so.6", "/lib/x/libgcc_s.so.1", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(libraries("\tlibx.so.1 => not found\n"), Err("libx.so.1 => not found"));
        assert_eq!(libraries("\tstatically linked\n"), Ok(BTreeSet::new()));
        assert_eq!(libraries(""), Err(""));
    }

    /// This test's own program is one that is linked with glibc.
    #[test]
    fn a_program_runs_on_what_is_in_its_image_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let own = std::env::current_exe().expect("known");
        let program = dir.path().join("hello");
        fs::copy(&own, &program).expect("copied");
        let licence = dir.path().join("LICENSE");
        fs::write(&licence, "free").expect("written");
        let image = ProgramImage { reference: "localhost/hello:7", program: &program, beside: &[], licence: &licence };
        if let Err(lack @ PackError::Licence(_)) = pack(&image, &dir.path().join("out")) {
            eprintln!("cannot be tested here: {lack}");
            return;
        }
        let packed = pack(&image, &dir.path().join("out")).expect("packed");
        assert!(packed.archive.ends_with("out/hello-7.tar") && packed.bytes > 1 << 20, "{packed:?}");
        assert_eq!(fs::read_dir(dir.path().join("out")).expect("read").count(), 1, "only the archive is left");
        let again = pack(&image, &dir.path().join("again")).expect("packed");
        assert_eq!(packed.digest, again.digest);

        let (tree, root) = (dir.path().join("tree"), dir.path().join("root"));
        let untar = |file: &Path, to: &Path| {
            fs::create_dir(to).expect("made");
            let tar = Command::new("tar").arg("-xf").arg(file).arg("-C").arg(to).status();
            assert!(tar.expect("tar is there").success());
        };
        untar(&packed.archive, &tree);
        let json =
            |place: &str| -> Value { serde_json::from_slice(&fs::read(tree.join(place)).expect(place)).expect("JSON") };
        // What `docker load` reads names the same blobs.
        let listed = json("manifest.json");
        assert_eq!(listed[0]["RepoTags"][0], "localhost/hello:7");
        let configuration = json(listed[0]["Config"].as_str().expect("a place"));
        assert_eq!(configuration["config"]["User"], "65532:65532");
        assert_eq!(configuration["config"]["Entrypoint"][0], "/usr/bin/hello");
        untar(&tree.join(listed[0]["Layers"][0].as_str().expect("a place")), &root);
        let shell = ["bin/sh", "usr/bin/sh", "bin/busybox"].map(|shell| root.join(shell).exists());
        assert_eq!(shell, [false; 3]);
        assert!(root.join("usr/share/doc/libc6/copyright").exists());
        // By the image's own loader and libraries, and no other's.
        let found: Vec<PathBuf> =
            linked(&program).expect("linked").into_iter().map(|(place, _)| root.join(place)).collect();
        let loader = found.iter().find(|place| place.to_string_lossy().contains("/ld-linux")).expect("a loader");
        let libc = found.iter().find(|place| place.ends_with("libc.so.6")).expect("glibc");
        let mut run = Command::new(loader);
        run.arg("--inhibit-cache").arg("--library-path").arg(libc.parent().expect("a folder"));
        let ran = run.arg(root.join("usr/bin/hello")).args(["--list", "none"]).output().expect("it starts");
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
}
