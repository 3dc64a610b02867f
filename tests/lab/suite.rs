//! Where the binaries under test and their peers are.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Space;

/// A directory of CNI plugins.
#[derive(Debug, Clone)]
pub struct Suite {
    /// What reports call it.
    pub name: &'static str,
    dir: PathBuf,
}

/// The plugins that podwire has.
pub const PLUGINS: [&str; 11] = [
    "bridge",
    "ptp",
    "loopback",
    "host-local",
    "static",
    "portmap",
    "firewall",
    "tuning",
    "sbr",
    "bandwidth",
    "podwire-policy",
];

impl Suite {
    /// The plugins under test: `PODWIRE_BIN_DIR`, or `target/lab/podwire` of the workspace.
    #[must_use]
    pub fn podwire() -> Self {
        let plugins: Vec<&str> = ["podwire"].into_iter().chain(PLUGINS).collect();
        Self::find("podwire", "PODWIRE_BIN_DIR", &plugins)
    }

    /// The reference plugins: `PEERS_BIN_DIR`, or `target/lab/peers` of the workspace.
    #[must_use]
    pub fn reference() -> Self {
        let plugins = PLUGINS.into_iter().filter(|name| *name != "podwire-policy");
        let plugins: Vec<&str> = plugins.chain(["cnitool"]).collect();
        Self::find("reference", "PEERS_BIN_DIR", &plugins)
    }

    /// The suite of a directory that the test filled itself.
    #[must_use]
    pub fn at(name: &'static str, dir: &Path) -> Self {
        Self { name, dir: dir.to_owned() }
    }

    /// The directory, as `CNI_PATH` wants it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The executable of a plugin.
    #[must_use]
    pub fn plugin(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn find(name: &'static str, variable: &str, plugins: &[&str]) -> Self {
        let dir = directory(name, variable);
        for plugin in plugins {
            must_be_there(&dir.join(plugin), variable);
        }
        Self { name, dir }
    }
}

/// A peer that is no plugin, such as `etcd`: of `PEERS_BIN_DIR`, or `target/lab/peers` of the
/// workspace.
#[must_use]
pub fn peer(name: &str) -> PathBuf {
    let file = directory("peers", "PEERS_BIN_DIR").join(name);
    must_be_there(&file, "PEERS_BIN_DIR");
    file
}

/// The daemon under test: `POLICYD_BIN`, or what `make build` makes.
#[must_use]
pub fn policyd() -> PathBuf {
    daemon("policyd", "POLICYD_BIN")
}

/// The same of Services: `PROXYD_BIN`.
#[must_use]
pub fn proxyd() -> PathBuf {
    daemon("proxyd", "PROXYD_BIN")
}

fn daemon(name: &str, variable: &str) -> PathBuf {
    let built = workspace().join("target/x86_64-unknown-linux-musl/daemon").join(name);
    let file = env::var_os(variable).map_or(built, PathBuf::from);
    assert!(file.is_file(), "{} is missing: run `make build`, or set {variable}", file.display());
    file
}

fn directory(name: &str, variable: &str) -> PathBuf {
    env::var_os(variable)
        .map_or_else(|| workspace().join("target/lab").join(default_dir(name)), PathBuf::from)
}

fn must_be_there(file: &Path, variable: &str) {
    assert!(
        file.is_file(),
        "{} is missing: run `make test-setup`, or set {variable}",
        file.display()
    );
}

fn default_dir(name: &str) -> &str {
    if name == "podwire" { "podwire" } else { "peers" }
}

/// The root of the checkout: of that which is tested, which need not be the one that was compiled, as
/// builds are kept between checkouts. Cargo tells it to tests; who is run from there is there.
///
/// # Panics
/// There is no working directory.
#[must_use]
pub fn workspace() -> PathBuf {
    match env::var_os("CARGO_MANIFEST_DIR") {
        Some(tests) => Path::new(&tests).parent().expect("tests/ is in the workspace").to_owned(),
        None => env::current_dir().expect("there is a working directory"),
    }
}

/// As long as `time` is on a machine of usual speed: on one that is emulated `LAB_SLOWER` times as long.
///
/// For whoever waits for something that must come, and for whoever listens for what must not: there, a time that is
/// too short hears nothing, whatever happens.
#[must_use]
pub fn slowed(time: Duration) -> Duration {
    let slower = env::var("LAB_SLOWER").ok().and_then(|it| it.parse().ok());
    time * slower.unwrap_or(1)
}

/// Whether this machine has the programs of iptables: what tests do as others do it is done by nft where not.
#[must_use]
pub fn has_iptables() -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|it| it.join("iptables").exists())
}

/// The backend by which policyd is tested: `POLICYD_BACKEND`, or else iptables.
#[must_use]
pub fn backend() -> &'static str {
    match env::var("POLICYD_BACKEND").as_deref() {
        Ok("nftables") => "nftables",
        Ok("iptables") | Err(_) => "iptables",
        Ok(other) => panic!("POLICYD_BACKEND is {other:?}: expected iptables or nftables"),
    }
}

/// Whether that is nf_tables.
#[must_use]
pub fn by_nftables() -> bool {
    backend() == "nftables"
}

/// What a node holds of policyd's rules and sets, by the backend that is tested: `:CHAIN` for each chain, and
/// `-A CHAIN RULE` for each rule.
#[must_use]
pub fn policy_rules(space: &Space) -> String {
    if by_nftables() { nftables_rules(space) } else { iptables_rules(space) }
}

/// The same by nf_tables, whatever is tested.
#[must_use]
pub fn nftables_rules(space: &Space) -> String {
    let parts = nft_parts(space).into_values();
    parts.flat_map(|part| lines_of(&part)).collect::<Vec<_>>().join("\n")
}

/// The same by iptables and ipset, whatever is tested; nothing where their programs are not.
#[must_use]
pub fn iptables_rules(space: &Space) -> String {
    if !has_iptables() {
        return String::new();
    }
    space.sh("for p in iptables ip6tables; do $p-save | grep -i podwire || true; done; ipset save | grep podwire | sed 's/initval [^ ]*//' | sort || true")
}

/// All rules and sets of a node, of whomever, by each program that there is.
#[must_use]
pub fn all_rules(space: &Space) -> String {
    let older = if has_iptables() { "iptables-save; ip6tables-save; ipset save" } else { ":" };
    space.sh(&format!("{older}; nft list ruleset"))
}

/// What nft lists of policyd's tables of packets, by table and set or chain: the line that begins it, and what
/// is in it. Chains, sets and elements come in whatever order, rules in theirs.
#[must_use]
pub fn nft_parts(space: &Space) -> BTreeMap<String, Vec<String>> {
    let mut parts = BTreeMap::new();
    for table in ["inet podwire", "bridge podwire-ports"] {
        let listed = space.sh(&format!("nft --stateless list table {table} 2>/dev/null || true"));
        // Elements come in several lines.
        let listed = listed.split(",\n").map(str::trim).collect::<Vec<_>>().join(", ");
        let mut place = String::new();
        for line in listed.lines().map(str::trim).filter(|line| !matches!(*line, "" | "}")) {
            if let Some(head) = line.strip_suffix(" {") {
                // That of the table has its name twice.
                place = format!("{table} {head}");
            }
            parts.entry(place.clone()).or_insert_with(Vec::new).push(in_order(line));
        }
    }
    parts
}

fn in_order(line: &str) -> String {
    let Some((start, elements)) = line.split_once("elements = { ") else { return line.to_owned() };
    let mut elements: Vec<_> = elements.trim_end_matches(" }").split(", ").collect();
    elements.sort_unstable();
    format!("{start}elements = {{ {} }}", elements.join(", "))
}

/// Of a chain, a set or a table as nft lists it.
fn lines_of(part: &[String]) -> Vec<String> {
    let Some((head, rest)) = part.split_first() else { return Vec::new() };
    let is_open = rest.len() == 2 && rest.iter().any(|it| it.starts_with("accept comment"));
    match head.split(' ').collect::<Vec<_>>().as_slice() {
        // Every pod has chains, and elements of maps that lead there; those of who is not isolated accept all.
        ["chain", _, "{"] if is_open => rest.iter().take(1).cloned().collect(),
        ["map", ..] => Vec::new(),
        ["chain", name, "{"] => {
            let rules = rest.iter().map(|rule| format!("-A {name} {rule}"));
            [format!(":{name}")].into_iter().chain(rules).collect()
        }
        _ => part.to_vec(),
    }
}

/// The addresses that policyd's gate lets pass.
#[must_use]
pub fn let_pass(space: &Space) -> BTreeSet<String> {
    if by_nftables() {
        let maps = space.sh("nft list maps inet 2>/dev/null || true");
        let elements =
            maps.split([',', '{', '}']).filter_map(|it| it.split_once(" : jump PODWIRE-TO-"));
        return elements.map(|(address, _)| address.trim().to_owned()).collect();
    }
    let saved = space.sh("ipset save");
    let members = saved.lines().filter_map(|line| line.strip_prefix("add "));
    let members = members.filter_map(|line| line.split_once("-programmed "));
    members.map(|(_, address)| address.to_owned()).collect()
}

/// The addresses of pods whose interface policyd knows: nobody else may send from them.
#[must_use]
pub fn bound(space: &Space) -> BTreeSet<String> {
    let rules = policy_rules(space);
    let words: Vec<_> = rules.split_whitespace().collect();
    if by_nftables() {
        // An empty one has none, and the next set may.
        let sets = rules.split("\nset ").filter(|it| it.starts_with("bound-"));
        let lists = sets.filter_map(|it| it.split_once("elements = {"));
        let elements = lists.filter_map(|(_, it)| it.split('}').next());
        return elements.flat_map(|it| it.split(',')).map(|it| it.trim().to_owned()).collect();
    }
    let members = words.windows(3).filter(|it| it[0] == "add" && it[1].ends_with("-bound"));
    members.map(|it| it[2].to_owned()).collect()
}
