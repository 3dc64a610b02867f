//! What the machine around a cluster looks like: it is to be the same before and after.

use std::fs;
use std::path::Path;

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

/// Links, mounts, parameters, folders and control groups, a line for each.
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
    lines.sort();
    lines
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
