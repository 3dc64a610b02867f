//! What the virtual machine is told to do. It finds it in the archive that it starts from.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where the virtual machine finds its plan ...
pub(crate) const PLAN: &str = "plan.json";

/// ... and the modules that it needs before it sees any other file, named by their order.
pub(crate) const MODULES: &str = "modules";

/// By what the machine's files are known to the virtual one.
pub(crate) const SHARE: &str = "machine";

/// Where programs are.
pub(crate) const PROGRAMS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// All that is done in a virtual machine.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The kernel that is expected, by its own name for itself.
    pub(crate) release: String,
    /// The folder of its modules.
    pub(crate) modules: PathBuf,
    /// Modules to load at the start.
    pub(crate) loaded: Vec<String>,
    /// Modules that must not be there.
    pub(crate) without_modules: Vec<String>,
    /// Beginnings of the names of programs that are to be removed.
    pub(crate) without_programs: Vec<String>,
    /// The environment of the tests.
    pub(crate) environment: BTreeMap<String, String>,
    /// What to run, in this order.
    pub(crate) suites: Vec<Planned>,
}

/// A binary of tests to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Planned {
    /// The package, and the test's name in its `Cargo.toml`.
    pub(crate) name: String,
    /// The binary.
    pub(crate) file: PathBuf,
    /// The folder to run it in, which is that of its package.
    pub(crate) folder: PathBuf,
    /// The tests to run.
    pub(crate) tests: Vec<String>,
}
