//! What the figures were measured on.

use std::fs;
use std::path::Path;

use measuring::output;
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, TMPFS_MAGIC, statfs};

use crate::contestant::{PLUGINS, Programs};
use crate::lane::Bench;

/// Facts as name and value.
pub(crate) fn facts(bench: &Bench) -> Vec<(&'static str, String)> {
    let mut facts = measuring::machine();
    facts.extend([
        ("leases on", file_system(&bench.home).to_owned()),
        ("iptables", output("iptables", &["--version"])),
        ("Go plugins", go_version(&bench.programs)),
        ("podwire", output_of_podwire(&bench.programs)),
    ]);
    facts
}

/// The reference's plugins that podwire has not.
const OTHERS: [&str; 8] =
    ["dhcp", "dummy", "host-device", "ipvlan", "macvlan", "tap", "vlan", "vrf"];

/// The program that is all of podwire's plugins.
pub(crate) const PODWIRE: &str = "podwire (all its plugins)";

/// Sizes of the programs, as name and bytes.
pub(crate) fn sizes(programs: &Programs) -> Vec<(&'static str, u64)> {
    let size = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    let of_go = |plugins: &[&str]| plugins.iter().map(|it| size(&programs.peers.join(it))).sum();
    let (same, others): (u64, u64) = (of_go(&PLUGINS), of_go(&OTHERS));
    vec![
        (PODWIRE, size(&programs.podwire.join("podwire"))),
        ("Go: the plugins that podwire has", same),
        ("Go: all plugins", same + others),
    ]
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
