//! The binaries of tests that cargo built, and the tests in them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use runner::{OsRunner, Program, Runner};
use serde::Deserialize;

use crate::error::{Error, Result};

/// To list tests takes moments.
const BOUND: Duration = Duration::from_secs(60);

/// A binary of tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Built {
    /// The package, and the test's name in its `Cargo.toml`.
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    /// The folder of its package.
    pub(crate) folder: PathBuf,
}

/// What is read of a message of cargo's.
#[derive(Debug, Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    package_id: String,
    #[serde(default)]
    manifest_path: PathBuf,
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Target {
    kind: Vec<String>,
    name: String,
}

/// The binaries that cargo tells of, by `--message-format=json`.
///
/// # Errors
/// A line is no message of cargo's.
pub(crate) fn read(messages: &str) -> Result<Vec<Built>> {
    let mut built = Vec::new();
    for line in messages.lines() {
        let message: Message = serde_json::from_str(line).map_err(|source| Error::Unreadable {
            what: format!("a message of cargo's ({line})"),
            source,
        })?;
        built.extend(message.built());
    }
    Ok(built)
}

impl Message {
    fn built(self) -> Option<Built> {
        let target = self.target.filter(|it| it.kind.iter().any(|kind| kind == "test"))?;
        let name = format!("{}/{}", package(&self.package_id), target.name);
        let folder = self.manifest_path.parent()?.to_owned();
        let file = self.executable.filter(|_| self.reason == "compiler-artifact")?;
        Some(Built { name, file, folder })
    }
}

/// A package's name, of what cargo calls its id: it is left out where the folder has the same.
fn package(id: &str) -> &str {
    let (place, version) = id.split_once('#').unwrap_or((id, ""));
    let folder = place.rsplit('/').next().unwrap_or_default();
    version.split_once('@').map_or(folder, |(name, _)| name)
}

impl Built {
    /// The tests that it has.
    ///
    /// # Errors
    /// It does not tell, or has none.
    pub(crate) fn list(&self) -> Result<Vec<String>> {
        let args = ["--list", "--format", "terse"];
        let timeout = Some(BOUND);
        let program =
            Program { file: self.file.clone(), args: &args, timeout, ..Program::default() };
        let printed = succeed(&program)?;
        let tests = listed(&printed);
        if tests.is_empty() { Err(Error::NoTests(self.name.clone())) } else { Ok(tests) }
    }
}

fn listed(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// Runs a program that must succeed; what it printed.
pub(crate) fn succeed(program: &Program<'_>) -> Result<String> {
    let output = OsRunner.run(program)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Failed {
        program: told(&program.file, program.args),
        status: output.status.to_string(),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

fn told(file: &Path, args: &[&str]) -> String {
    format!("{} {}", file.display(), args.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_cargos_messages_the_binaries_of_tests_are_read() {
        let messages = [
            r#"{"reason":"compiler-artifact","package_id":"registry+https://x#serde@1.0.0","manifest_path":"/r/serde/Cargo.toml","target":{"kind":["lib"],"name":"serde","src_path":"/r"},"executable":null}"#,
            r#"{"reason":"compiler-artifact","package_id":"path+file:///p/crates/netlink#0.1.0","manifest_path":"/p/crates/netlink/Cargo.toml","target":{"kind":["lib"],"name":"netlink"},"executable":"/t/netlink-1"}"#,
            r#"{"reason":"compiler-artifact","package_id":"path+file:///p/crates/netlink#0.1.0","manifest_path":"/p/crates/netlink/Cargo.toml","target":{"kind":["test"],"name":"kernel"},"executable":"/t/kernel-1"}"#,
            r#"{"reason":"compiler-artifact","package_id":"path+file:///p/tests#lab@0.1.0","manifest_path":"/p/tests/Cargo.toml","target":{"kind":["test"],"name":"worlds"},"executable":"/t/worlds-1"}"#,
            r#"{"reason":"build-finished","success":true}"#,
        ];
        let found = read(&messages.join("\n")).unwrap();
        let built = |name: &str, file: &str, folder: &str| Built {
            name: name.to_owned(),
            file: file.into(),
            folder: folder.into(),
        };
        let kernel = built("netlink/kernel", "/t/kernel-1", "/p/crates/netlink");
        assert_eq!(found, [kernel, built("lab/worlds", "/t/worlds-1", "/p/tests")]);
        assert!(read("error: no such command").is_err());
    }

    #[test]
    fn tests_are_listed_and_nothing_else() {
        let text = "a::one: test\nb::two: test\nb::fast: benchmark\n";
        assert_eq!(listed(text), ["a::one", "b::two"]);
        assert!(listed("").is_empty());
    }
}
