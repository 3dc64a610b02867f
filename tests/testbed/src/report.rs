//! What is told to people.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use testbed::error::{Error, Result};
use testbed::inside::Node;
use testbed::kubectl::Kubectl;
use testbed::settings::{MOST_NODES, node_name};
use testbed::state::State;

/// Tells why something failed.
pub(crate) fn complain(error: &Error) {
    let _ = writeln!(io::stderr(), "testbed: {}", error.chain());
}

/// Tells what runs.
pub(crate) fn status(state: &State) -> Result<()> {
    let (record, supervisor) = state.running()?;
    say(&format!("supervisor: process {}, logs below {}", supervisor.id, state.root().display()))?;
    for number in record.settings.numbers() {
        match Node::find(supervisor, number) {
            Ok(node) => say(&format!("{}: process {}", node_name(number), node.init().id))?,
            Err(error) => say(&error.to_string())?,
        }
    }
    let kubectl = Kubectl::on(Node::find(supervisor, 1)?);
    say(&kubectl.run(&["get", "nodes", "-o", "wide"])?)?;
    say(&kubectl.run(&["get", "pods", "-A", "-o", "wide"])?)
}

/// Shows the end of each log.
pub(crate) fn logs(
    state: &State,
    program: Option<String>,
    node: Option<u8>,
    lines: usize,
) -> Result<()> {
    // Those of a cluster that is down are there as well.
    if !state.supervisor_log().exists() {
        return Err(Error::Down(state.root().to_owned()));
    }
    if node.is_none() && program.is_none() {
        show(&state.supervisor_log(), lines)?;
    }
    for number in (1..=MOST_NODES).filter(|it| node.is_none_or(|node| node == *it)) {
        let Ok(entries) = fs::read_dir(state.logs(number)) else { continue };
        let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        let wanted = |file: &&std::path::PathBuf| {
            program.as_deref().is_none_or(|it| file.file_stem().is_some_and(|stem| stem == it))
        };
        files.iter().filter(wanted).try_for_each(|file| show(file, lines))?;
    }
    Ok(())
}

fn show(file: &Path, lines: usize) -> Result<()> {
    let text = String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned();
    let all: Vec<_> = text.lines().collect();
    let last = all.get(all.len().saturating_sub(lines)..).unwrap_or_default();
    say(&[&[format!("==> {} <==", file.display()).as_str()], last].concat().join("\n"))
}

/// Prints a line, or several. Who reads no further, as `head` does, has seen enough.
fn say(text: &str) -> Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        printed => printed.map_err(Error::file("write to", "the standard output")),
    }
}
