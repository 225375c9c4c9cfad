//! The help is golden: a change of a command, an option or an exit code shows as a diff.

use super::{finish, tidewater};

fn help(args: &[&str]) -> String {
    let ran = finish(&mut tidewater(None, args));
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.stdout
}

#[test]
fn the_help_is_as_reviewed() {
    insta::assert_snapshot!("help", help(&["--help"]));
}

#[test]
fn the_help_of_submit_is_as_reviewed() {
    insta::assert_snapshot!("help_submit", help(&["submit", "--help"]));
}

#[test]
fn the_help_of_dashboard_is_as_reviewed() {
    insta::assert_snapshot!("help_dashboard", help(&["dashboard", "--help"]));
}

#[test]
fn every_command_has_help_and_no_command_at_all_is_wrong_usage() {
    let commands = "submit get describe why forecast logs dashboard cancel delete forget capacity whatif clusters dev demo replay coordinator agent node identity completions";
    for command in commands.split(' ') {
        assert!(help(&[command, "--help"]).contains("Usage:"), "{command}");
    }
    assert_eq!(finish(&mut tidewater(None, &[])).code, 2);
    assert_eq!(finish(&mut tidewater(None, &["no-such-command"])).code, 2);
}

#[test]
fn completions_are_made_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(help(&["completions", shell]).contains("capacity"), "{shell}");
    }
}

#[test]
fn the_guard_is_reached_without_a_server_or_a_runtime() {
    let ran = finish(&mut tidewater(None, &["guard", "--anything", "goes"]));
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(!help(&["--help"]).contains("guard"));
}
