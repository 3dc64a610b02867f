//! Files below a directory, with their modes and contents.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Files that the system's own programs make below `/run`.
const OF_PROGRAMS: [&str; 2] = ["/run/mount/ ", "/run/xtables.lock "];

/// The facts of the files below `root`, which are told with `prefix` before their names.
pub(crate) fn facts(root: &Path, prefix: &str) -> Vec<String> {
    let mut files = Vec::new();
    walk(root, root, &mut files);
    let named = files.into_iter().map(|file| format!("{prefix}{file}"));
    let told = named.filter(|file| !OF_PROGRAMS.iter().any(|name| file.starts_with(name)));
    told.map(|file| format!("file {file}")).collect()
}

/// A file that vanishes while we look (a lease given back) is not there.
fn walk(root: &Path, dir: &Path, facts: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let name = path.strip_prefix(root).expect("it is below").display().to_string();
        let mode = metadata.permissions().mode() & 0o7777;
        if metadata.is_dir() {
            facts.push(format!("{name}/ mode={mode:o}"));
            walk(root, &path, facts);
        } else if let Ok(bytes) = fs::read(&path) {
            facts.push(format!("{name} mode={mode:o} {}", content(bytes)));
        }
    }
}

/// A text in quotes; what is none only as such, because it means nothing to a reader.
fn content(bytes: Vec<u8>) -> String {
    let is_text = |text: &String| text.chars().all(|c| !c.is_control() || c.is_whitespace());
    match String::from_utf8(bytes).ok().filter(is_text) {
        Some(text) => format!("\"{}\"", text.escape_debug()),
        None => "(binary)".to_owned(),
    }
}
