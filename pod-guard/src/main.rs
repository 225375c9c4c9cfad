//! The guard in a pod. See [`pod_guard::pod`].

fn main() {
    std::process::exit(pod_guard::pod::run_from_args(std::env::args_os().skip(1)));
}
