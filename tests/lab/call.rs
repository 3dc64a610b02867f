//! One call of a CNI plugin: the environment, the configuration, and the answer.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;

use crate::node::Node;
use crate::process::{Finished, Running, program};
use crate::suite::Suite;

/// Where plugins find `iptables` and its like.
const SYSTEM_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A call in the making. The environment is empty but for what is set here.
#[derive(Debug, Clone)]
pub struct Call {
    plugin: String,
    /// `None`: surely not set, not even to a default.
    environment: BTreeMap<String, Option<OsString>>,
    stdin: Vec<u8>,
}

/// A call that runs.
#[derive(Debug)]
pub struct Started {
    running: Running,
    what: String,
}

/// The answer of a plugin.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Exit status; `None` when a signal ended it.
    pub exit: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    what: String,
}

/// The error object of the specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniError {
    /// `code`
    pub code: u64,
    /// `msg`
    pub msg: String,
    /// `details`, empty when absent.
    pub details: String,
    /// `cniVersion`, which the reference never sets.
    pub version: Option<String>,
}

impl Call {
    /// A call of `plugin` for container `cid1` and interface `eth0`.
    #[must_use]
    pub fn new(plugin: &str, command: &str) -> Self {
        let call =
            Self { plugin: plugin.to_owned(), environment: BTreeMap::new(), stdin: Vec::new() };
        call.env("PATH", SYSTEM_PATH)
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", "cid1")
            .env("CNI_IFNAME", "eth0")
    }

    /// `CNI_CONTAINERID`
    #[must_use]
    pub fn container(self, id: &str) -> Self {
        self.env("CNI_CONTAINERID", id)
    }

    /// `CNI_NETNS`
    #[must_use]
    pub fn netns(self, path: &Path) -> Self {
        self.env("CNI_NETNS", path)
    }

    /// `CNI_IFNAME`
    #[must_use]
    pub fn ifname(self, name: &str) -> Self {
        self.env("CNI_IFNAME", name)
    }

    /// `CNI_ARGS`
    #[must_use]
    pub fn args(self, args: &str) -> Self {
        self.env("CNI_ARGS", args)
    }

    /// Any variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.insert(name.to_owned(), Some(value.as_ref().to_owned()));
        self
    }

    /// Takes a variable away.
    #[must_use]
    pub fn unset(mut self, name: &str) -> Self {
        self.environment.insert(name.to_owned(), None);
        self
    }

    /// The configuration, on stdin.
    #[must_use]
    pub fn conf(self, conf: &Value) -> Self {
        self.stdin(conf.to_string().as_bytes())
    }

    /// Any bytes on stdin.
    #[must_use]
    pub fn stdin(mut self, bytes: &[u8]) -> Self {
        self.stdin = bytes.to_vec();
        self
    }

    /// Starts the plugin of `suite` on `node`; `CNI_PATH` is the suite's directory unless set before.
    #[must_use]
    pub fn start(&self, node: &Node, suite: &Suite) -> Started {
        self.start_command(self.command(suite), node, suite)
    }

    pub(crate) fn command(&self, suite: &Suite) -> Command {
        let mut command = program(suite.plugin(&self.plugin));
        command.env_clear().env("CNI_PATH", suite.dir()).current_dir("/");
        for (name, value) in &self.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    pub(crate) fn start_command(&self, command: Command, node: &Node, suite: &Suite) -> Started {
        Started { running: node.start(command, &self.stdin), what: self.describe(suite) }
    }

    /// Runs the plugin of `suite` on `node` to its end.
    #[must_use]
    pub fn run(&self, node: &Node, suite: &Suite) -> Reply {
        self.start(node, suite).finish()
    }

    fn describe(&self, suite: &Suite) -> String {
        let shown = |(name, value): (&String, &Option<OsString>)| match value {
            Some(value) => format!("{name}={}", value.display()),
            None => format!("no {name}"),
        };
        let variables: Vec<_> = self.environment.iter().map(shown).collect();
        let stdin = String::from_utf8_lossy(&self.stdin);
        format!("{} {} with {}\nand stdin {stdin}", suite.name, self.plugin, variables.join(" "))
    }
}

impl Started {
    pub(crate) fn pid(&self) -> Pid {
        self.running.pid()
    }

    /// Kills the plugin with SIGKILL, not what it has started.
    pub fn kill(&mut self) {
        self.running.kill_alone();
    }

    /// Stops the plugin until it is resumed.
    pub fn pause(&self) {
        self.running.signal(Signal::SIGSTOP);
    }

    /// Has the plugin go on.
    pub fn resume(&self) {
        self.running.signal(Signal::SIGCONT);
    }

    /// Waits for the end.
    #[must_use]
    pub fn finish(self) -> Reply {
        let Finished { status, stdout, stderr } = self.running.finish();
        Reply { exit: status.code(), stdout, stderr, what: self.what }
    }
}

impl Reply {
    /// Whether the plugin said that it succeeded.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.exit == Some(0)
    }

    /// The result document of a success, `Null` for none; panics on a failure.
    #[must_use]
    pub fn ok(&self) -> Value {
        assert!(self.succeeded(), "expected success:\n{self}");
        if self.stdout.is_empty() { Value::Null } else { self.document() }
    }

    /// The error object of a failure; panics on a success and when there is not exactly one object.
    #[must_use]
    pub fn error(&self) -> CniError {
        assert_eq!(self.exit, Some(1), "expected an error and exit status 1:\n{self}");
        let document = self.document();
        let text = |key| document.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let code = document.get("code").and_then(Value::as_u64);
        CniError {
            code: code.unwrap_or_else(|| panic!("an error without a code:\n{self}")),
            msg: text("msg"),
            details: text("details"),
            version: document.get("cniVersion").and_then(Value::as_str).map(str::to_owned),
        }
    }

    /// The error object, which must have this code, a text and a version.
    pub fn expect_error(&self, code: u64) -> CniError {
        let error = self.error();
        assert_eq!(error.code, code, "the error's code:\n{self}");
        assert!(!error.msg.is_empty(), "an error without a text:\n{self}");
        assert!(error.version.is_some(), "an error without cniVersion:\n{self}");
        error
    }

    /// The documents on stdout: a plugin owes exactly one, or none after DEL and CHECK.
    #[must_use]
    pub fn documents(&self) -> Vec<Value> {
        serde_json::Deserializer::from_str(&self.stdout)
            .into_iter()
            .map(|document| {
                document.unwrap_or_else(|e| panic!("stdout is not JSON ({e}):\n{self}"))
            })
            .collect()
    }

    fn document(&self) -> Value {
        let mut documents = self.documents();
        assert_eq!(documents.len(), 1, "expected exactly one document on stdout:\n{self}");
        documents.remove(0)
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { exit, stdout, stderr, what } = self;
        write!(f, "{what}\nexit status {exit:?}\nstdout: {stdout}\nstderr: {stderr}")
    }
}

/// The addresses of a result.
#[must_use]
pub fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = result["ips"].as_array().expect("ips").iter();
    let texts = ips.map(|ip| ip["address"].as_str().and_then(|it| it.split('/').next()));
    texts.map(|it| it.and_then(|it| it.parse().ok()).expect("an address")).collect()
}
