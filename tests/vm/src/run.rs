//! All tests, in one virtual machine after the other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, thread};

use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::built::{self, Built};
use crate::choice::{all_told, chosen};
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::machine::Machine;
use crate::plan::{PROGRAMS, Plan, Planned};
use crate::report;
use crate::results::Told;
use crate::table::{EXCEPT, KERNELS, LANES, LEFT_OUT, Lane, SUITES, Suite};

const ALL: &str = "all";

/// So many virtual machines run at once. Tests wait about as long as they work, and at the end of a suite
/// one is often alone.
const AT_ONCE: usize = 2;

/// What is emulated takes about so many times as long as the tests allow for, on a machine that does nothing else: on
/// one that does, whoever starts the tests tells it.
const SLOWER: &str = "6";

/// What the tests are told of where things are, and of how much to do.
const HANDED_ON: &[&str] = &[
    "PODWIRE_BIN_DIR",
    "PEERS_BIN_DIR",
    "POLICYD_BIN",
    "INSTA_WORKSPACE_ROOT",
    "PODWIRE_WORLDS",
    "LAB_SLOWER",
];

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What cargo told of the tests that it built (`cargo test --no-run --message-format=json`).
    #[arg(long, value_name = "FILE")]
    built: PathBuf,
    /// The folder that kernels were unpacked into.
    #[arg(long, value_name = "DIR")]
    kernels: PathBuf,
    /// The folder for what the virtual machines start from, and for what they say.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// On which kernel.
    #[arg(long, default_value = ALL, value_parser = PossibleValuesParser::new(KERNELS.iter().chain([&ALL])))]
    kernel: String,
    /// In which lane: `nft-only` is without iptables and ipset.
    #[arg(long, default_value = ALL, value_parser = PossibleValuesParser::new(LANES.iter().map(|it| it.name).chain([ALL])))]
    lane: String,
    /// Only suites with this in their names.
    #[arg(long, value_name = "PART", default_value = "")]
    suite: String,
    /// And of them only tests with one of these in their names.
    #[arg(long, value_name = "PART", value_delimiter = ',', default_value = "")]
    test: Vec<String>,
}

/// A binary of tests, with all that it has.
struct Listed {
    suite: &'static Suite,
    built: Built,
    tests: Vec<String>,
}

/// Runs the tests; whether all are as they should be.
///
/// # Errors
/// They cannot be run.
pub(crate) fn run(arguments: &Arguments) -> Result<bool> {
    let path = &arguments.built;
    let messages = fs::read_to_string(path).map_err(Error::file("read", path))?;
    let built = built::read(&messages)?;
    let of_lab = built.iter().filter(|it| it.name.starts_with("lab/"));
    let of_lab = of_lab.map(|it| Ok((it.name.as_str(), it.list()?)));
    all_told(&of_lab.collect::<Result<Vec<_>>>()?, SUITES, LEFT_OUT)?;
    let listed = list(&built, &arguments.suite)?;
    let has = |part: &str| listed.iter().any(|it| it.tests.iter().any(|it| it.contains(part)));
    if let Some(part) = arguments.test.iter().find(|it| !has(it)) {
        return Err(Error::NoTest(part.clone()));
    }
    let is_asked_for = |asked: &str, name: &str| asked == ALL || asked == name;
    let kernels = KERNELS.iter().filter(|it| is_asked_for(&arguments.kernel, it));
    let lanes = || LANES.iter().filter(|it| is_asked_for(&arguments.lane, it.name));
    let all: Vec<_> =
        kernels.flat_map(|kernel| lanes().map(move |lane| (*kernel, *lane))).collect();
    in_turn(&all, |(kernel, lane)| run_lane(arguments, kernel, lane, &listed))
}

/// Does something with each, some at once; whether all came out well. One that fails does not keep the
/// others from being done.
fn in_turn<T: Copy + Sync>(all: &[T], run: impl Fn(T) -> Result<bool> + Sync) -> Result<bool> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut outcome = Ok(true);
        while let Some(it) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            match (run(*it), &mut outcome) {
                (Ok(is_good), Ok(all_good)) => *all_good &= is_good,
                (Err(error), Ok(_)) => outcome = Err(error),
                (Ok(_), Err(_)) => {}
                (Err(error), Err(_)) => report::complain(&error),
            }
        }
        outcome
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        let ended = workers.into_iter().map(|it| {
            it.join().unwrap_or_else(|_| Err(Error::Broken("a thread of ours panicked".to_owned())))
        });
        // All are waited for, and the first error is told.
        let ended: Vec<_> = ended.collect();
        ended.into_iter().try_fold(true, |all, it| Ok(all & it?))
    })
}

/// The tests of all suites of the table whose names have this part.
fn list(built: &[Built], part: &str) -> Result<Vec<Listed>> {
    let mut listed = Vec::new();
    for suite in SUITES.iter().filter(|it| it.name.contains(part)) {
        let built = built.iter().find(|it| it.name == suite.name);
        let built = built.ok_or_else(|| Error::NotBuilt(suite.name.to_owned()))?;
        listed.push(Listed { suite, tests: built.list()?, built: built.clone() });
    }
    if listed.is_empty() { Err(Error::NoSuite(part.to_owned())) } else { Ok(listed) }
}

fn run_lane(arguments: &Arguments, name: &str, lane: &Lane, listed: &[Listed]) -> Result<bool> {
    let kernel = Kernel::open(&arguments.kernels, name)?;
    let suites = planned(lane, listed, &arguments.test)?;
    if suites.is_empty() {
        report::nothing(name, lane);
        return Ok(true);
    }
    let machine = Machine::new(arguments.state.join(format!("{name}-{}", lane.name)))?;
    let plan = plan(&kernel, lane, suites, &machine.folder)?;
    let archive = kernel.archive(&plan)?;
    report::begins(name, lane, &plan, &machine);
    let went = machine.run(&kernel.image, &archive)?;
    let told = Told::read(&went.results);
    let faults = told.faults(&plan.suites);
    report::ended(&format!("{name}, {}", lane.name), &told, &plan, &faults, &went);
    Ok(faults.is_empty() && went.trouble.is_none())
}

/// What should run in a lane, of the tests with one of these parts in their names.
fn planned(lane: &Lane, listed: &[Listed], parts: &[String]) -> Result<Vec<Planned>> {
    let of_lane = listed.iter().filter(|it| it.suite.lanes.contains(&lane));
    let mut all = Vec::new();
    for it in of_lane {
        let mut tests = chosen(it.suite, lane, EXCEPT, it.tests.clone())?;
        tests.retain(|test| parts.iter().any(|part| test.contains(part)));
        let Built { name, file, folder } = it.built.clone();
        if !tests.is_empty() {
            all.push(Planned { name, file, folder, tests });
        }
    }
    Ok(all)
}

fn plan(kernel: &Kernel, lane: &Lane, suites: Vec<Planned>, folder: &Path) -> Result<Plan> {
    let owned = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect();
    let modules = kernel.fill(folder, lane)?;
    Ok(Plan {
        release: kernel.release.clone(),
        modules: fs::canonicalize(&modules).map_err(Error::file("find", &modules))?,
        loaded: owned(lane.loaded),
        without_modules: owned(lane.without_modules),
        without_programs: owned(lane.without_programs),
        environment: environment(lane),
        suites,
    })
}

/// The environment of the tests: files that they make are in memory alone.
fn environment(lane: &Lane) -> BTreeMap<String, String> {
    let handed_on = HANDED_ON.iter().filter_map(|it| Some(((*it).to_owned(), env::var(it).ok()?)));
    let own = [
        ("PATH", PROGRAMS),
        ("HOME", "/root"),
        ("TMPDIR", "/dev/shm"),
        ("INSTA_UPDATE", "no"),
        ("LAB_SLOWER", SLOWER),
        ("POLICYD_BACKEND", lane.backend),
    ];
    own.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into_iter()
        .chain(handed_on)
        .collect()
}
