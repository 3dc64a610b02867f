//! What the machine around a cluster looks like: it is to be the same before and after.

use std::fs;
use std::path::Path;
use std::time::Duration;

use runner::{OsRunner, Program, Runner};
use testbed::process::Identity;

/// Parameters of the whole machine that programs of a cluster like to change.
const PARAMETERS: [&str; 7] = [
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "vm/overcommit_memory",
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/netfilter/nf_conntrack_max",
];

/// Folders of the machine that programs of a cluster would use if they were not kept from it. Others may
/// have some of them.
const FOLDERS: [&str; 14] = [
    "/etc/cni",
    "/etc/cni/net.d",
    "/opt",
    "/opt/cni/bin",
    "/run/containerd",
    "/run/netns",
    "/run/podwire",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/etcd",
    "/var/lib/kubelet",
    "/var/lib/testbed",
    "/var/log/containers",
    "/var/log/pods",
];

/// What tells of the machine's own network.
const PROGRAMS: [&[&str]; 6] = [
    &["nft", "--stateless", "list", "ruleset"],
    &["ip", "-4", "rule"],
    &["ip", "-6", "rule"],
    &["ip", "-4", "route", "show", "table", "all"],
    &["ip", "-6", "route", "show", "table", "all"],
    &["ipset", "list", "-name"],
];

/// A program that tells ends within this time.
const PATIENCE: Duration = Duration::from_secs(20);

/// Links, rules, routes, mounts, parameters, folders, control groups and processes of containers, a
/// line for each.
///
/// # Panics
/// A program that tells of them cannot be run.
#[must_use]
pub fn dump() -> Vec<String> {
    let mut lines = Vec::new();
    lines.extend(names("/sys/class/net").into_iter().map(|it| format!("link {it}")));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let place = |line: &str| line.split(' ').nth(4).map(|it| format!("mount {it}"));
    lines.extend(mounts.lines().filter_map(place));
    for name in PARAMETERS {
        let value = fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap_or_default();
        lines.push(format!("{name} = {}", value.trim()));
    }
    for folder in FOLDERS {
        lines.extend(names(folder).into_iter().map(|it| format!("file {folder}/{it}")));
    }
    groups(Path::new("/sys/fs/cgroup"), &mut lines);
    PROGRAMS.iter().for_each(|it| lines.extend(told(it)));
    lines.extend(contained());
    lines.sort();
    lines
}

fn told(line: &[&str]) -> Vec<String> {
    let [file, args @ ..] = line else { return Vec::new() };
    let program =
        Program { file: file.into(), args, timeout: Some(PATIENCE), ..Program::default() };
    let output = OsRunner.run(&program).unwrap_or_else(|error| panic!("{error}"));
    assert!(output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    // How long a route that a router told of is still good.
    let kept = text.lines().map(|it| it.split(" expires ").next().unwrap_or(it));
    kept.map(|it| format!("{}: {it}", line.join(" "))).collect()
}

/// Processes with a namespace of process ids other than ours: all of a cluster's have one.
fn contained() -> Vec<String> {
    let space = |id: &str| fs::read_link(format!("/proc/{id}/ns/pid")).ok();
    let own = space("self");
    let is_number = |it: &String| it.bytes().all(|byte| byte.is_ascii_digit());
    let ids = names("/proc").into_iter().filter(is_number);
    let others = ids.filter(|id| space(id).is_some_and(|it| Some(it) != own));
    // One that has ended may wait for us to ask how.
    let runs = |id: &str| id.parse().ok().and_then(Identity::of).is_some_and(|it| it.is_alive());
    let others = others.filter(|id| runs(id));
    let name = |id: &str| fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
    others.map(|id| format!("process {id} {}", name(&id).trim())).collect()
}

fn names(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|it| it.file_name().to_string_lossy().into_owned()).collect()
}

/// Control groups of clusters: those of others come and go.
fn groups(folder: &Path, lines: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|it| it.is_dir()) {
            if path.to_string_lossy().contains("podwire-testbed") {
                lines.push(format!("control group {}", path.display()));
            }
            groups(&path, lines);
        }
    }
}
