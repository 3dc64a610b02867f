//! What this program does as the first process of a virtual machine: it takes the machine's files for
//! its own, runs the tests, tells what came of them through the second serial port, and switches off.

mod files;
mod lane;
mod suites;

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::Write;
use std::time::Duration;

use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::termios::tcdrain;
use runner::Program;

use crate::built::succeed;
use crate::error::{Error, Result};
use crate::plan::{PLAN, PROGRAMS, Plan};
use crate::results::{BROKEN, DONE, OURS};

/// The port that results are told through. The kernel has its driver built in.
const PORT: &str = "/dev/ttyS1";

/// A program that prepares something takes moments, here some more.
const BOUND: Duration = Duration::from_secs(60);

/// Where results go.
#[derive(Debug)]
struct Port(File);

impl Port {
    fn open() -> Result<Self> {
        File::options().write(true).open(PORT).map(Self).map_err(Error::file("open", PORT))
    }

    /// Tells something in a line of our own.
    fn tell(&mut self, text: &str) -> Result<()> {
        writeln!(self.0, "{OURS}{text}").map_err(Error::file("write", PORT))
    }
}

/// Does all that there is to do, and switches off.
///
/// # Errors
/// It cannot even tell that something went wrong. The kernel, which wants its first process to stay,
/// then panics, and so the virtual machine ends in any case.
pub(crate) fn run() -> Result<Infallible> {
    files::devices()?;
    let mut port = Port::open()?;
    let last = match work(&mut port) {
        Ok(()) => format!("{DONE} after {} s", uptime()),
        Err(error) => format!("{BROKEN}{}", error.chain().replace('\n', " ")),
    };
    port.tell(&last)?;
    tcdrain(&port.0).map_err(Error::kernel("tell all results"))?;
    reboot(RebootMode::RB_POWER_OFF).map_err(Error::kernel("switch off"))
}

fn work(port: &mut Port) -> Result<()> {
    let path = format!("/{PLAN}");
    let text = fs::read(&path).map_err(Error::file("read", &path))?;
    let plan: Plan = serde_json::from_slice(&text)
        .map_err(|source| Error::Unreadable { what: PLAN.to_owned(), source })?;
    files::take()?;
    files::have_modules(&plan)?;
    lane::remove_programs(&plan.without_programs)?;
    for module in &plan.loaded {
        succeed(&program("modprobe", &[module]))?;
    }
    lane::lengthen_queues()?;
    // Some tests talk to themselves outside of any namespace.
    succeed(&program("ip", &["link", "set", "lo", "up"]))?;
    lane::check(&plan)?;
    port.tell(&format!("booted {} after {} s", plan.release, uptime()))?;
    for suite in &plan.suites {
        suites::run(suite, &plan.environment, port)?;
    }
    // Nothing of what ran has brought back what is not there.
    lane::check(&plan)
}

fn program<'a>(file: &str, args: &'a [&'a str]) -> Program<'a> {
    // The kernel gives its first process none.
    let env = vec![("PATH", PROGRAMS.into())];
    Program { file: file.into(), args, env, timeout: Some(BOUND), ..Program::default() }
}

/// How long the virtual machine has been running, in seconds.
fn uptime() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split('.').next().and_then(|it| it.parse().ok()).unwrap_or_default()
}
