//! Golden scripts: what is said to the engine, and what it answers, as a person reads it.

#![allow(clippy::unwrap_used)]

mod support;

#[test]
fn every_script_tells_its_story() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts");
    let mut scripts: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    scripts.sort();
    assert!(scripts.len() >= 15, "scripts are missing from {folder}");
    for path in scripts {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let story = support::script::run(&std::fs::read_to_string(&path).unwrap());
        insta::assert_snapshot!(name, story);
    }
}
