//! Who is measured, and where the programs are.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};

/// Whose programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contestant {
    /// The reference plugins.
    Go,
    /// Ours.
    Podwire,
    /// The kernel's own work, done by the shortest code.
    Floor,
}

impl Contestant {
    /// All, in the order of the report's columns.
    pub(crate) const ALL: [Self; 3] = [Self::Go, Self::Podwire, Self::Floor];
}

impl fmt::Display for Contestant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Go => "Go",
            Self::Podwire => "podwire",
            Self::Floor => "floor",
        })
    }
}

/// The plugins that both suites have.
pub(crate) const PLUGINS: [&str; 10] = [
    "bridge",
    "ptp",
    "loopback",
    "host-local",
    "static",
    "portmap",
    "firewall",
    "tuning",
    "bandwidth",
    "sbr",
];

/// Where the programs are.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) podwire: PathBuf,
    pub(crate) peers: PathBuf,
    pub(crate) floor: PathBuf,
}

impl Programs {
    /// `PODWIRE_BIN_DIR`, `PEERS_BIN_DIR` and `FLOOR_BIN`, or where the Makefile puts them.
    pub(crate) fn find() -> Self {
        let lab = env::current_dir().expect("there is a working directory").join("target/lab");
        let from = |name, default: PathBuf| env::var_os(name).map_or(default, PathBuf::from);
        let programs = Self {
            podwire: from("PODWIRE_BIN_DIR", lab.join("podwire")),
            peers: from("PEERS_BIN_DIR", lab.join("peers")),
            floor: from("FLOOR_BIN", floor_nearby()),
        };
        for plugin in PLUGINS {
            must_be_there(&programs.podwire.join(plugin), "PODWIRE_BIN_DIR");
            must_be_there(&programs.peers.join(plugin), "PEERS_BIN_DIR");
        }
        must_be_there(&programs.floor, "FLOOR_BIN");
        programs
    }

    /// The program of a contestant for a plugin.
    pub(crate) fn program(&self, contestant: Contestant, plugin: &str) -> PathBuf {
        match contestant {
            Contestant::Go => self.peers.join(plugin),
            Contestant::Podwire => self.podwire.join(plugin),
            Contestant::Floor => self.floor.clone(),
        }
    }

    /// The `CNI_PATH` of a contestant.
    pub(crate) fn cni_path(&self, contestant: Contestant) -> &Path {
        match contestant {
            Contestant::Go => &self.peers,
            Contestant::Podwire | Contestant::Floor => &self.podwire,
        }
    }
}

/// The floor that was built for podwire's target, in the target folder that this program is in;
/// else the one beside this program.
fn floor_nearby() -> PathBuf {
    let own = env::current_exe().expect("/proc is mounted");
    let beside = own.with_file_name("floor");
    let target = own.ancestors().nth(2).unwrap_or(&own);
    let triple = format!("{}-unknown-linux-musl", env::consts::ARCH);
    let musl = target.join(triple).join("release/floor");
    if musl.is_file() { musl } else { beside }
}

fn must_be_there(file: &Path, variable: &str) {
    assert!(
        file.is_file(),
        "{} is missing: run `make bench-cni`, or set {variable}",
        file.display()
    );
}
