//! What the figures were measured on.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, TMPFS_MAGIC, statfs};

use crate::contestant::{PLUGINS, Programs};
use crate::lane::Bench;

/// Facts as name and value.
pub(crate) fn facts(bench: &Bench) -> Vec<(&'static str, String)> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    vec![
        ("date", output("date", &["-u", "+%Y-%m-%d"])),
        ("cores", cores.to_string()),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("load before", load()),
        ("leases on", file_system(&bench.home).to_owned()),
        ("iptables", output("iptables", &["--version"])),
        ("Go plugins", go_version(&bench.programs)),
        ("podwire", output_of_podwire(&bench.programs)),
    ]
}

/// The mean number of running programs in the last minute: on a quiet machine about one is ours.
pub(crate) fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().unwrap_or_default().to_owned()
}

/// Sizes of the programs, as name and bytes.
pub(crate) fn sizes(programs: &Programs) -> Vec<(&'static str, u64)> {
    let size = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    let five = PLUGINS.iter().map(|plugin| size(&programs.peers.join(plugin))).sum();
    let entries = fs::read_dir(&programs.peers).expect("the plugins were found before");
    let files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let all = files.filter(|path| !path.ends_with("cnitool")).map(|path| size(&path)).sum();
    vec![
        ("podwire (all its plugins)", size(&programs.podwire.join("podwire"))),
        ("Go: the same five plugins", five),
        ("Go: all plugins", all),
    ]
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map_or_else(
        |_| "unknown".into(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

fn output_of_podwire(programs: &Programs) -> String {
    let text =
        output(programs.podwire.join("podwire").to_str().unwrap_or_default(), &["--version"]);
    text.lines().next().unwrap_or("unknown").to_owned()
}

/// The version that Go's linker notes in its programs.
fn go_version(programs: &Programs) -> String {
    const MODULE: &[u8] = b"mod\tgithub.com/containernetworking/plugins\t";
    let bytes = fs::read(programs.peers.join("bridge")).unwrap_or_default();
    let place = bytes.windows(MODULE.len()).position(|window| window == MODULE);
    let rest = place.and_then(|place| bytes.get(place + MODULE.len()..)).unwrap_or_default();
    let version = rest.split(|byte| byte.is_ascii_whitespace()).next().unwrap_or_default();
    if version.is_empty() {
        "unknown".into()
    } else {
        String::from_utf8_lossy(version).into_owned()
    }
}

fn file_system(path: &Path) -> &'static str {
    match statfs(path).map(|statfs| statfs.filesystem_type()) {
        Ok(EXT4_SUPER_MAGIC) => "ext4",
        Ok(BTRFS_SUPER_MAGIC) => "btrfs",
        Ok(TMPFS_MAGIC) => "tmpfs",
        _ => "another file system",
    }
}
