//! Starting a plugin as a runtime does, as cheaply as can be.

use std::fs::File;
use std::io::{Read, Write, pipe};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// One call, ready to be made.
#[derive(Debug)]
pub(crate) struct Prepared {
    command: Command,
    what: String,
}

/// One call that runs.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    what: String,
    started: Instant,
}

/// One call that ended well.
#[derive(Debug)]
pub(crate) struct Finished {
    /// From the start of the process to its end, with its output read.
    pub(crate) took: Duration,
    /// What it printed.
    pub(crate) printed: Vec<u8>,
}

impl Prepared {
    /// A program with exactly these variables, and `stdin` waiting in a pipe.
    pub(crate) fn new(program: &Path, variables: &[(&str, &str)], stdin: &str, log: &File) -> Self {
        let (reader, mut writer) = pipe().expect("out of descriptors");
        writer.write_all(stdin.as_bytes()).expect("a configuration fits into a pipe");
        let mut command = Command::new(program);
        command.env_clear().envs(variables.iter().copied());
        command.stdin(reader).stdout(Stdio::piped());
        command.stderr(log.try_clone().expect("out of descriptors"));
        let what = format!("{} {variables:?}", program.display());
        Self { command, what }
    }

    /// The command, for those who start it differently.
    pub(crate) fn into_command(self) -> Command {
        self.command
    }

    /// Starts it. The standard library uses `posix_spawn` here, which is a vfork.
    pub(crate) fn start(mut self) -> Running {
        let started = Instant::now();
        let child = self.command.spawn().expect("the programs were found before");
        Running { child, what: self.what, started }
    }
}

impl Running {
    /// Reads what it prints and waits for its end.
    pub(crate) fn finish(mut self) -> Finished {
        let mut printed = Vec::with_capacity(4096);
        let mut stdout = self.child.stdout.take().expect("it is a pipe");
        stdout.read_to_end(&mut printed).expect("a pipe can be read");
        let status = self.child.wait().expect("it is our child");
        let took = self.started.elapsed();
        let text = String::from_utf8_lossy(&printed);
        assert!(status.success(), "{} ended with {status}:\n{text}", self.what);
        Finished { took, printed }
    }
}
