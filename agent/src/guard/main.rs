//! The guard as a binary of its own; the `tidewater` binary has the same as its hidden `guard` subcommand.

fn main() {
    std::process::exit(agent::guard::run_from_args(std::env::args_os().skip(1)));
}
