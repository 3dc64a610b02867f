//! What the program tells people.

use std::fs;
use std::process::{Command, Stdio};

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "it ends at once, and a closed pipe is to be its output"
)]
fn who_reads_no_further_of_logs_ends_nothing() {
    let state = tempfile::tempdir().unwrap();
    // More than a pipe holds.
    fs::write(state.path().join("supervisor.log"), "said\n".repeat(100_000)).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_testbed"))
        .arg("--state")
        .arg(state.path())
        .args(["logs", "--lines", "100000"])
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stderr, b"");
}
