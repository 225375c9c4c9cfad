//! `tidewater completions`: a shell's completion script.

use clap_complete::Shell;

use crate::render::Out;

/// Which shell.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  source <(tidewater completions bash)\n  tidewater completions zsh > ~/.zfunc/_tidewater\n  \
tidewater completions fish > ~/.config/fish/completions/tidewater.fish"
)]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Runs the command.
pub fn run(args: Args, out: &Out) -> anyhow::Result<()> {
    let mut script = vec![];
    clap_complete::generate(args.shell, &mut crate::args::command(), "tidewater", &mut script);
    out.bytes(&script)
}
