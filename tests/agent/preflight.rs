//! Before policyd writes anything, it tries in a namespace of its own whether the kernel can hold
//! its rules.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use lab::{Daemon, Finished, Node, all_rules, policyd, program};

use crate::node::{BY_IPTABLES, PATIENCE, PolicedNode, command};

/// A folder with an `iptables-restore` that behaves as on a kernel without connection tracking.
fn broken_programs(node: &Node) -> String {
    let folder = node.home().join("bin");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("iptables-restore");
    let script = r#"#!/bin/sh
text=$(cat)
line=$(printf '%s\n' "$text" | grep -n -m1 -e '-m conntrack' | cut -d: -f1)
[ -z "$line" ] && { printf '%s\n' "$text" | exec /usr/sbin/iptables-restore "$@"; exit; }
echo "iptables-restore v1.8.9 (nf_tables): " >&2
echo "line $line: RULE_APPEND failed (No such file or directory): rule in chain X" >&2
exit 4
"#;
    fs::write(&file, script).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
}

fn preflight(node: &Node, words: &[&str], options: &[&str]) -> Finished {
    let (file, words) = words.split_first().unwrap();
    let mut command = program(file);
    command.env_remove("KUBECONFIG").args(words).arg(policyd());
    command.args(["--deny", "reject", "--pod-cidr", "10.1.0.0/24"]).args(options).arg("preflight");
    node.run(command)
}

#[test]
fn a_good_kernel_passes_and_keeps_nothing() {
    let node = Node::quick();
    let everything = ["env"];
    // What the DaemonSet has: no namespace can be made but together with a user namespace.
    let granted = ["setpriv", "--bounding-set=-all,+net_admin,+net_raw", "--no-new-privs"];
    for words in [&everything[..], &granted[..]] {
        let ended = preflight(&node, words, &[]);
        assert!(ended.status.success(), "{words:?}: {}", ended.stderr);
        // Nor is nf_tables for bridges missing, which is no failure.
        assert_eq!(ended.stderr, "", "{words:?}");
    }
    let left = all_rules(&node);
    assert!(!left.to_lowercase().contains("podwire"), "{left}");
}

#[test]
fn a_missing_module_is_named_and_waited_for() {
    let node = Node::quick();
    let path = format!("PATH={}", broken_programs(&node));
    let ended = preflight(&node, &["env", &path], BY_IPTABLES);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("xt_conntrack"), "{}", ended.stderr);

    fs::create_dir(node.home().join("manifests")).unwrap();
    let mut command = command(&node);
    command.args(BY_IPTABLES).env("PATH", path.strip_prefix("PATH=").unwrap());
    let log = node.home().join("policyd.log");
    let mut daemon = Daemon::start("policyd", command, &node, log);
    let answer = |page: &str| {
        node.try_sh(&format!("curl -s --max-time 2 http://127.0.0.1:9099/{page}")).stdout
    };
    daemon.wait_until(PATIENCE, || answer("readyz").contains("xt_conntrack"));
    assert_eq!(answer("healthz"), "ok\n");
    let rules = node.sh("iptables-save; ip6tables-save; ipset save");
    assert!(!rules.to_lowercase().contains("podwire"), "{rules}");
    // As after modprobe.
    fs::remove_file(node.home().join("bin/iptables-restore")).unwrap();
    daemon.wait_until(PATIENCE, || answer("readyz") == "ok\n");
    assert!(node.sh("iptables-save").contains("PODWIRE-FORWARD"));
}

/// As in the image that has none.
#[test]
fn by_nf_tables_no_program_is_needed() {
    let node = Node::quick();
    fs::create_dir(node.home().join("manifests")).unwrap();
    let by_netlink = |mut command: Command| {
        command.args(["--backend", "nftables"]).env("PATH", "/nowhere");
        command
    };
    let mut command = by_netlink(command(&node));
    command.args(["--masquerade", "--masquerade-config=/proc/none"]);
    let log = node.home().join("policyd.log");
    let mut daemon = Daemon::start("policyd", command, &node, log.clone());
    let tables = || node.sh("nft list tables");
    daemon.wait_until(PATIENCE, || {
        let ask = "curl -sf --max-time 2 http://127.0.0.1:9099/readyz";
        node.try_sh(ask).status.success() && tables().contains("podwire-masquerade")
    });
    assert!(tables().contains("table inet podwire\n"), "{}", tables());
    daemon.terminate(PATIENCE);
    let said = fs::read_to_string(log).unwrap();
    assert!(!said.contains("ERROR"), "{said}");
    let mut cleanup = by_netlink(program(policyd()));
    cleanup.env_remove("KUBECONFIG").arg("cleanup");
    let ended = node.run(cleanup);
    assert!(ended.status.success() && ended.stderr.is_empty(), "{}", ended.stderr);
    assert_eq!(tables(), "");
}

/// The image without programs came to a node that the other one had served.
#[test]
fn rules_that_take_programs_are_named_where_there_are_none() {
    let mut node = PolicedNode::told(&["a"], BY_IPTABLES);
    node.kill();
    for (backend, told) in [
        ("auto", "takes iptables as this node holds rules of policyd's"),
        ("nftables", "rules of the other backend (iptables and ipset) cannot be removed"),
    ] {
        let mut command = command(&node.node);
        command.args(["--backend", backend]).env("PATH", "/nowhere");
        let log = node.node.home().join("without-programs.log");
        let mut daemon = Daemon::start("policyd without programs", command, &node.node, log);
        daemon.wait_until(PATIENCE, || {
            let ask = "curl -s --max-time 2 http://127.0.0.1:9099/readyz";
            node.node.try_sh(ask).stdout.contains(told)
        });
    }
    node.start();
    node.clean_up();
}
