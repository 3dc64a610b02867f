//! What the program tells people.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

#[expect(
    clippy::disallowed_methods,
    reason = "it ends at once, and closed pipes are to be its output"
)]
fn testbed(state: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_testbed"));
    command.arg("--state").arg(state).args(arguments).stdin(Stdio::null());
    command
}

#[test]
fn who_reads_no_further_of_logs_ends_nothing() {
    let state = tempfile::tempdir().unwrap();
    // More than a pipe holds.
    fs::write(state.path().join("supervisor.log"), "said\n".repeat(100_000)).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = testbed(state.path(), &["logs", "--lines", "100000"]);
    let output = command.stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stderr, b"");
}

#[test]
fn a_folder_without_a_cluster_is_told_and_nobody_has_to_listen() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("mistyped");
    let output = testbed(&state, &["down"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("no cluster was ever up in "), "{said}");
    assert!(!state.exists());
    for (arguments, code) in [(["down"], 0), (["status"], 1)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = testbed(&state, &arguments).stderr(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    }
}
