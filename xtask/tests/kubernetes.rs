//! `cargo xtask kubernetes` as people type it: up in one process, seen and ended from others.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use testbed::bed::Bed;
use testbed::images::RAY_ANSWER;
use testbed::process::Record;
use testbed::{Binaries, Image, Images, NodeSettings, Settings, node};

fn xtask(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("kubernetes").args(arguments).arg("--folder").arg(folder);
    // What a failed check leaves to be read goes with the test.
    command.env("TMPDIR", folder);
    command.output().expect("xtask starts")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Ends what is left when a test breaks off.
struct Down<'a>(&'a Path);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        xtask(self.0, &["down"]);
    }
}

#[test]
fn clusters_outlive_up_and_down_ends_exactly_them() {
    if let Err(error) = Binaries::provide(&Settings::with_fake_nodes("").tools(), &|line| eprintln!("{line}")) {
        assert!(error.is_lack(), "{error}");
        eprintln!("skipped: {error}");
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let _down = Down(dir.path());
    let began = Instant::now();
    let up = xtask(dir.path(), &["up", "--clusters", "2", "--fake-nodes", "20"]);
    assert!(up.status.success(), "{}", err(&up));
    eprintln!("up in {:.1} s:\n{}", began.elapsed().as_secs_f64(), err(&up));
    for cluster in ["cluster-1", "cluster-2"] {
        let kubeconfig = dir.path().join(cluster).join("kubeconfig");
        assert!(out(&up).contains(&format!("{cluster}: export KUBECONFIG={}", kubeconfig.display())), "{}", out(&up));
        assert!(kubeconfig.exists());
    }

    let again = xtask(dir.path(), &["up"]);
    assert!(
        !again.status.success() && err(&again).contains("10 processes of an earlier `up` still run"),
        "{}",
        err(&again)
    );

    let status = xtask(dir.path(), &["status"]);
    assert_eq!(out(&status).matches(" runs\n").count(), 10, "{}", out(&status));

    check_tries_clusters_and_leaves_nothing(dir.path());

    // Another's process with an id that stands in a record is not ours to end.
    let mut stranger = Command::new("sleep").arg("600").spawn().expect("sleep starts");
    let record = dir.path().join("cluster-1/kwok.pid");
    let text = std::fs::read_to_string(&record).expect("a record");
    let (_, rest) = text.split_once(' ').expect("an id and more");
    let kept = dir.path().join("cluster-1/scheduler-again.pid");
    std::fs::write(&kept, &text).expect("written");
    std::fs::write(&record, format!("{} {rest}", stranger.id())).expect("written");
    let down = xtask(dir.path(), &["down", "--keep"]);
    assert!(err(&down).contains("processes that were ended: 9"), "{}", err(&down));
    assert!(stranger.try_wait().expect("a child").is_none(), "it ended somebody else's process");
    stranger.kill().and_then(|()| stranger.wait()).expect("a child");

    std::fs::rename(&kept, &record).expect("put back");
    let down = xtask(dir.path(), &["down"]);
    assert!(err(&down).contains("processes that were ended: 1"), "{}", err(&down));
    assert!(!dir.path().join("cluster-1").exists() && !dir.path().join("cluster-2").exists());
    let status = xtask(dir.path(), &["status"]);
    assert!(out(&status).contains("no clusters"), "{}", out(&status));
}

/// Small workloads run on both, by their kubeconfigs, and the namespaces that were made for them are gone; also where it fails.
fn check_tries_clusters_and_leaves_nothing(folder: &Path) {
    let [one, two] = ["cluster-1", "cluster-2"].map(|c| folder.join(c).join("kubeconfig").display().to_string());
    let both = ["check", "--kubeconfig", &one, "--kubeconfig", &two, "--patience", "150"];
    let built = built();
    let built: Vec<&str> = built.iter().map(String::as_str).collect();
    let began = Instant::now();
    let check = xtask(folder, &[&both[..], &built].concat());
    let said = out(&check);
    assert!(check.status.success(), "{said}{}", err(&check));
    for each in [": batch is Succeeded", ": gpu is Succeeded", ": nothing is left of them"] {
        assert_eq!(said.matches(each).count(), 2, "{each} of {said}");
    }
    assert!(said.contains("all is well (clusters: 2)"), "{said}");
    eprintln!("checked in {:.1} s:\n{said}", began.elapsed().as_secs_f64());
    assert_eq!(namespaces_of_checks(&one), [""; 0]);

    let check = xtask(folder, &[&both[..], &["--program", "/bin/false"]].concat());
    assert!(!check.status.success() && err(&check).contains("tidewater identity"), "{}", err(&check));
    assert_eq!(namespaces_of_checks(&two), [""; 0]);
    // Nobody waits for what can't come.
    let began = Instant::now();
    let check = xtask(folder, &[&["check", "--kubeconfig", &one, "--ray-image", "ray"][..], &built].concat());
    let said = out(&check);
    assert!(!check.status.success() && began.elapsed().as_secs() < 200, "{said}{}", err(&check));
    assert!(said.contains("ray is Queued") && said.contains("does not run ray"), "{said}{}", err(&check));
    assert!(said.contains("batch is Succeeded") && err(&check).contains("did not succeed: 1"), "{said}{}", err(&check));
    assert_eq!(namespaces_of_checks(&one), [""; 0]);
    let check = xtask(folder, &["check", "--kubeconfig", &one, "--kubeconfig", "/no/such/file"]);
    assert!(!check.status.success() && err(&check).contains("/no/such/file"), "{}", err(&check));
    assert_eq!(namespaces_of_checks(&one), [""; 0]);
}

/// Names `tidewater` where it is built beside this test, as when the whole workspace is tested; else the command builds it.
fn built() -> Vec<String> {
    let program = Path::new(env!("CARGO_BIN_EXE_xtask")).with_file_name("tidewater");
    if program.exists() { vec!["--program".to_owned(), program.display().to_string()] } else { vec![] }
}

/// With images as people name theirs.
fn check_tries_ray_and_spark(folder: &Path, kubeconfig: &Path) {
    let [batch, ray, spark] = [Image::Batch, Image::Ray, Image::Spark].map(|image| image.reference());
    let kubeconfig = kubeconfig.display().to_string();
    let images = ["--image", &batch, "--ray-image", &ray, "--spark-image", &spark];
    let main = ["--spark-main", "local:///opt/tidewater/squares.py"];
    let built = built();
    let built: Vec<&str> = built.iter().map(String::as_str).collect();
    let check = xtask(folder, &[&["check", "--kubeconfig", &kubeconfig][..], &images, &main, &built].concat());
    let said = out(&check);
    assert!(check.status.success(), "{said}{}", err(&check));
    for name in ["batch", "ray", "spark"] {
        assert!(said.contains(&format!(": {name} is Succeeded")), "{name} of {said}");
    }
    assert!(said.contains("this is member 1") && said.contains(RAY_ANSWER) && said.contains("SUM 332833500"), "{said}");
    assert!(said.contains("nothing is left of them"), "{said}");
    eprintln!("{said}");
}

fn namespaces_of_checks(kubeconfig: &str) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let all = runtime.block_on(async {
        let client = testbed::connect(Path::new(kubeconfig)).await.expect("a client");
        kube::Api::<k8s_openapi::api::core::v1::Namespace>::all(client).list(&Default::default()).await
    });
    let names = all.expect("namespaces").items.into_iter().filter_map(|n| n.metadata.name);
    names.filter(|name| name.contains("check")).collect()
}

#[test]
fn a_real_node_goes_with_down_even_if_its_first_process_was_killed() {
    let node = NodeSettings::new(match Images::provide(&[Image::Ray, Image::Spark], &|line| eprintln!("{line}")) {
        Ok(images) => images,
        Err(error) => return skipped(error.is_lack(), &error.to_string()),
    });
    if let Err(lack) = node::check() {
        return skipped(true, &lack.to_string());
    }
    if let Err(error) = Binaries::provide(&Settings::with_real_node("", node).tools(), &|line| eprintln!("{line}")) {
        return skipped(error.is_lack(), &error.to_string());
    }
    let dir = tempfile::tempdir().expect("a folder");
    let _down = Down(dir.path());
    let up = xtask(dir.path(), &["up", "--clusters", "2", "--real-node", "--ray", "--spark"]);
    assert!(up.status.success(), "{}", err(&up));
    eprintln!("{}", err(&up));
    let status = out(&xtask(dir.path(), &["status"]));
    assert_eq!(status.matches(" runs\n").count(), 10 + 4 + 2, "{status}");
    assert_eq!(status.matches("kubelet ").count(), 1, "the first of them has the node: {status}");
    let cluster = dir.path().join("cluster-1");
    let record = |name: &str| Record::read(&cluster.join(name)).expect("a record");
    let (init, holder) = (record("node-init.pid"), record("node-network.pid"));
    let branch = std::fs::read_to_string(cluster.join("node/cgroup")).expect("a name");
    let branches = || {
        let groups = ["/sys/fs/cgroup", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/memory"].map(Path::new);
        groups.into_iter().filter(|group| group.join(&branch).exists()).count()
    };
    let clusters = Bed::new(dir.path().to_owned()).clusters().expect("clusters");
    check_tries_ray_and_spark(dir.path(), &clusters[0].kubeconfig());
    let interface = clusters[0].link().expect("it has a node").interface();
    let linked = || Path::new("/sys/class/net").join(&interface).exists();
    assert!(branches() > 0 && init.lives() && linked());

    record("node.pid").signal(rustix::process::Signal::KILL);
    let down = xtask(dir.path(), &["down"]);
    assert!(down.status.success(), "{}", err(&down));
    assert!(!init.lives() && !holder.lives());
    assert_eq!(branches(), 0, "its cgroups are left");
    assert!(!cluster.exists());
    let began = Instant::now();
    // The kernel takes a namespace apart in its own time.
    while linked() && began.elapsed().as_secs() < 30 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(!linked(), "the link to it is left");
}

fn skipped(is_lack: bool, why: &str) {
    assert!(is_lack, "{why}");
    eprintln!("skipped: {why}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let up = xtask(dir.path(), &["up", "--ray"]);
    assert!(!up.status.success() && err(&up).contains("--real-node"), "{}", err(&up));
    let check = xtask(dir.path(), &["check"]);
    assert!(!check.status.success() && err(&check).contains("name some with --kubeconfig FILE"), "{}", err(&check));
    let none = xtask(dir.path(), &["up", "--clusters", "0"]);
    assert!(!none.status.success());
    let down = xtask(dir.path(), &["down"]);
    assert!(down.status.success() && err(&down).contains("processes that were ended: 0"), "{}", err(&down));
}
