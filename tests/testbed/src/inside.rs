//! Running programs on a node, from outside of it.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};
use runner::{OsRunner, Output, Program, Runner};

use crate::error::{Error, Result};
use crate::mounts::{PROGRAMS, SHARED};
use crate::process::Identity;
use crate::running::program;
use crate::settings::node_name;

/// The namespaces of a process, and what the kernel calls them.
const NAMESPACES: [(&str, CloneFlags); 5] = [
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("net", CloneFlags::CLONE_NEWNET),
    ("pid", CloneFlags::CLONE_NEWPID),
    // Last, as /proc is another one then.
    ("mnt", CloneFlags::CLONE_NEWNS),
];

/// A node that runs.
#[derive(Debug, Clone)]
pub struct Node {
    name: String,
    init: Identity,
}

impl Node {
    /// The node of this number, below a supervisor.
    ///
    /// # Errors
    /// [`Error::NoNode`].
    pub fn find(supervisor: Identity, number: u8) -> Result<Self> {
        let name = node_name(number);
        let marks = ["node".to_owned(), number.to_string()];
        let init = supervisor.children().into_iter().find(|it| it.arguments().ends_with(&marks));
        match init {
            Some(init) => Ok(Self { name, init }),
            None => Err(Error::NoNode(name)),
        }
    }

    /// What is outside of the nodes: their bridge, and the address that is none of the cluster's.
    #[must_use]
    pub fn world(supervisor: Identity) -> Self {
        Self { name: "the world".to_owned(), init: supervisor }
    }

    /// Its first process.
    #[must_use]
    pub fn init(&self) -> Identity {
        self.init
    }

    /// Runs a program there to its end; one that fails is an error.
    ///
    /// # Errors
    /// It cannot be run, takes longer than `bound`, or fails.
    pub fn run(&self, arguments: &[&str], stdin: &[u8], bound: Duration) -> Result<Vec<u8>> {
        let output = self.try_run(arguments, stdin, bound)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(Error::Failed {
            program: format!("{} on {}", arguments.join(" "), self.name),
            status: output.status.to_string(),
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    /// Runs a program there to its end.
    ///
    /// # Errors
    /// It cannot be run, or takes longer than `bound`.
    pub fn try_run(&self, arguments: &[&str], stdin: &[u8], bound: Duration) -> Result<Output> {
        let Some((file, args)) = arguments.split_first() else {
            return Err(Error::NoNode("a program without a name".to_owned()));
        };
        let program = Program {
            file: file.into(),
            args,
            env: environment().map(|(name, value)| (name, value.into())).to_vec(),
            stdin,
            timeout: Some(bound),
            ..Program::default()
        };
        self.enter(|| Ok(OsRunner.run(&program)?))
    }

    /// Runs a program there that a person sits before, for as long as that one likes.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn attend(&self, arguments: &[String]) -> Result<ExitStatus> {
        let Some((file, args)) = arguments.split_first() else {
            return Err(Error::NoNode("a program without a name".to_owned()));
        };
        let mut command = program(Path::new(file));
        command.args(args).envs(environment()).current_dir("/").arg0(file);
        self.enter(|| command.status().map_err(Error::file("run", file)))
    }

    /// Starts a program there whose output the caller reads. It ends with the cluster at the latest.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, arguments: &[&str]) -> Result<Child> {
        let Some((file, args)) = arguments.split_first() else {
            return Err(Error::NoNode("a program without a name".to_owned()));
        };
        let mut command = program(Path::new(file));
        command.args(args).envs(environment()).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        self.enter(|| command.spawn().map_err(Error::file("run", file)))
    }

    /// Runs `f` on a thread that is where the node's first process is.
    fn enter<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let mut doors = Vec::new();
        for (name, kind) in NAMESPACES {
            let path = self.init.file(&format!("ns/{name}"));
            doors.push((name, kind, File::open(&path).map_err(Error::file("open", path))?));
        }
        let inside = || {
            // The folder that threads of a process share is no longer shared by this one.
            unshare(CloneFlags::CLONE_FS).map_err(Error::kernel("leave the other threads"))?;
            for (name, kind, door) in &doors {
                setns(door, *kind).map_err(Error::kernel(format!("enter a namespace ({name})")))?;
            }
            f()
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|_| Err(Error::NoNode("a thread of ours".to_owned())))
    }
}

/// What programs on a node find in their environment.
fn environment() -> [(&'static str, String); 2] {
    [
        ("PATH", format!("{PROGRAMS}:/opt/cni/bin:/usr/sbin:/usr/bin:/sbin:/bin")),
        ("KUBECONFIG", format!("{SHARED}/kubeconfigs/admin")),
    ]
}
