//! The process that all others of a cluster descend from, and that is the world around the nodes: a
//! bridge that joins them, and an address outside of the cluster.
//!
//! It is the first process of a namespace of processes. When it ends, by whatever cause, the kernel
//! ends all others, and with the last of them go all mounts, links and rules.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::{self, sleep};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Pid;

use crate::error::{Error, Result};
use crate::process::{Identity, wait_until};
use crate::running::{Places, Running, log, program, say};
use crate::services::Service;
use crate::settings::node_name;
use crate::state::{Record, State, make_folder};
use crate::{mounts, networks};

/// A new process may take this long to be where it should be.
const START: Duration = Duration::from_secs(20);

/// Between a node's end and its next start.
const PAUSE: Duration = Duration::from_secs(1);

/// This program.
pub const OURSELVES: &str = "/proc/self/exe";

/// Starts the supervisor of this cluster, by the program `testbed`, in namespaces of its own.
///
/// # Errors
/// The kernel refuses, or the cluster's folder cannot be written.
pub fn start(state: &State, program: &Path) -> Result<Identity> {
    let flags = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
    let pid = spawn_in(flags, program, state, &["supervise"], &state.supervisor_log())?;
    Identity::of(pid.as_raw()).ok_or_else(|| Error::NoNode("the supervisor".to_owned()))
}

/// Starts `testbed` with these arguments as the first process of new namespaces.
fn spawn_in(
    flags: CloneFlags,
    file: &Path,
    state: &State,
    arguments: &[&str],
    logged: &Path,
) -> Result<Pid> {
    let said = log(logged)?;
    let mut command = program(file);
    command.arg0("testbed").arg("--state").arg(state.root()).args(arguments);
    command.stdin(Stdio::null()).process_group(0);
    command.stdout(said.try_clone().map_err(Error::file("write", logged))?).stderr(said);
    // On a thread of its own, as it stays where it went.
    let spawn = || {
        unshare(flags).map_err(Error::kernel("make namespaces"))?;
        let child = command.spawn().map_err(Error::file("run", file))?;
        Ok(Pid::from_raw(child.id().cast_signed()))
    };
    thread::scope(|scope| scope.spawn(spawn).join())
        .unwrap_or_else(|_| Err(Error::NoNode("a thread of ours".to_owned())))
}

/// What the supervisor does until it is ended.
///
/// # Errors
/// The kernel refuses what a cluster needs.
pub fn supervise(state: &State) -> Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(Error::kernel("keep mounts from the machine"))?;
    mounts::fresh("proc", "/proc", none)?;
    // Nothing is done before it is on record that all of it ends with this process.
    let recorded = || Ok(state.load()?.filter(|it| it.supervisor.is_some_and(|it| it.is_ours())));
    let record = wait_until(START, || "the cluster's record".to_owned(), recorded)?;
    networks::make_world(record.settings.family)?;
    let mut nodes = Vec::new();
    for number in record.settings.numbers() {
        nodes.push((number, Some(start_node(state, number)?)));
    }
    let mut world = Running::new(vec![server()], places(state, &record)?);
    loop {
        let mut ended = Vec::new();
        world.turn(|pid| ended.push(pid));
        for (number, pid) in &mut nodes {
            if pid.is_some_and(|pid| ended.contains(&pid)) {
                say(&format!("{} has ended", node_name(*number)));
                *pid = None;
            }
            if pid.is_none() && !state.off_mark(*number).exists() {
                // One that cannot start is not to keep the machine busy.
                sleep(PAUSE);
                *pid = Some(start_node(state, *number)?);
            }
        }
    }
}

/// Who answers outside of the cluster.
fn server() -> Service {
    let arguments = ["netexec", "--http-port=8080", "--udp-port=8081"];
    Service { name: "agnhost", arguments: arguments.map(str::to_owned).to_vec(), after: None }
}

fn places(state: &State, record: &Record) -> Result<Places> {
    let home = state.world();
    let ids = home.join("ids");
    make_folder(&ids)?;
    Ok(Places { programs: record.peers.clone(), logs: home.join("log"), ids })
}

/// Starts a node, and joins it with the others.
fn start_node(state: &State, number: u8) -> Result<Pid> {
    let flags = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS;
    let logged = state.node(number).join("node.log");
    let number_text = number.to_string();
    let pid = spawn_in(flags, OURSELVES.as_ref(), state, &["node", &number_text], &logged)?;
    say(&format!("{} is process {pid}", node_name(number)));
    networks::join(number, pid.as_raw())?;
    Ok(pid)
}

/// What a node's first process does until it is ended.
///
/// # Errors
/// The kernel refuses what a node needs.
pub fn run_node(state: &State, number: u8) -> Result<()> {
    let name = node_name(number);
    let record = state.load()?.ok_or_else(|| Error::Down(state.root().to_owned()))?;
    record.groups.iter().try_for_each(|group| group.join(&name))?;
    mounts::enter(state, &record, number)?;
    nix::unistd::sethostname(&name).map_err(Error::kernel("set a host name"))?;
    let link = PathBuf::from("/sys/class/net/eth0");
    wait_until(START, || format!("{name}'s link"), || Ok(link.exists().then_some(())))?;
    networks::set_up_node(record.settings.family, number)?;
    let services = crate::services::of_node(&record.settings, number);
    let places = Places {
        programs: mounts::PROGRAMS.into(),
        logs: "/var/log/testbed".into(),
        ids: "/run/testbed".into(),
    };
    let mut running = Running::new(services, places);
    loop {
        running.turn(|_| ());
    }
}
