//! What befalls whoever makes rules: many at once, among the rules of others, and kills; and what programs there are.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::thread;
use std::time::Instant;

use lab::{Call, Reply};
use serde_json::{Value, json};

use crate::common::{Site, bridge_with_all};

const CONTAINERS: u16 = 50;

/// What kube-proxy keeps of its own, by either of its backends.
const KUBE_PROXY: &str = "
iptables-restore --noflush <<END
*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-ABCDEFGHIJKLMNOP - [0:0]
:KUBE-MARK-MASQ - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j KUBE-SVC-ABCDEFGHIJKLMNOP
-A KUBE-SVC-ABCDEFGHIJKLMNOP -j KUBE-MARK-MASQ
-A KUBE-SVC-ABCDEFGHIJKLMNOP -p tcp -j DNAT --to-destination 10.1.0.99:6443
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
COMMIT
END
nft -f - <<END
table ip kube-proxy {
  map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
  chain services { type nat hook prerouting priority dstnat
    ip daddr . meta l4proto . th dport vmap @service-ips
  }
}
END
";

/// The rules and elements of others.
fn others(site: &Site) -> Vec<String> {
    let all = site.node.sh("iptables-save; ip6tables-save; nft list table ip kube-proxy");
    let is_others = |line: &&str| !line.contains("CNI-") && !line.starts_with(['#', ':']);
    all.lines().filter(is_others).map(str::to_owned).collect()
}

pub(crate) fn all_at_once(numbers: &[u16], run: impl Fn(u16) -> Reply + Sync) {
    thread::scope(|scope| {
        for number in numbers {
            scope.spawn(|| {
                let reply = run(*number);
                assert!(reply.succeeded(), "{reply}");
            });
        }
    });
}

/// An ADD takes the place of an earlier one of the same attachment, also where that was for addresses of both families;
/// `call` is of a command and the result of the plugin before.
pub(crate) fn replaced_by_the_next(site: &Site, both: &Value, call: &dyn Fn(&str, &Value) -> Call) {
    let run = |command: &str, result: &Value| {
        let _ = site.run(&call(command, result)).ok();
    };
    let before = site.world(&[]);
    for ip in both["ips"].as_array().expect("a result has addresses") {
        let mut one = both.clone();
        one["ips"] = json!([ip]);
        run("ADD", &one);
        let alone = site.world(&[]);
        run("DEL", &one);
        run("ADD", both);
        run("ADD", &one);
        site.world(&[]).must_be(&alone, "in the place of another");
        run("CHECK", &one);
        run("DEL", &one);
        site.world(&[]).must_be(&before, "after DEL");
    }
}

/// Fifty containers come at once among the rules of others, half of them go at once, and then the others.
pub(crate) fn many_among_others(site: &Site, call: &(dyn Fn(&'static str, u16) -> Call + Sync)) {
    site.node.sh(KUBE_PROXY);
    let (before, foreign) = (site.world(&[]), others(site));
    let numbers: Vec<u16> = (1..=CONTAINERS).collect();
    let run = |command: &'static str| move |number| site.run(&call(command, number));
    all_at_once(&numbers, run("ADD"));
    all_at_once(&numbers, run("CHECK"));
    assert_eq!(others(site), foreign);
    // Those that stay have all that is theirs.
    let (gone, kept): (Vec<u16>, Vec<u16>) = numbers.iter().partition(|number| *number % 2 == 0);
    all_at_once(&gone, run("DEL"));
    all_at_once(&kept, run("CHECK"));
    all_at_once(&kept, run("DEL"));
    assert_eq!(others(site), foreign);
    site.world(&[]).must_be(&before, &site.conf.to_string());
}

/// Killed at any moment it leaves nothing that the DEL after it, which `del` gives for each round, does not remove.
pub(crate) fn killed_at_any_moment(
    site: &Site,
    call: &dyn Fn(&'static str) -> Call,
    del: &dyn Fn(u32) -> Call,
) {
    let before = site.world(&[]);
    let started = Instant::now();
    let _ = site.run(&call("ADD")).ok();
    let _ = site.run(&call("DEL")).ok();
    let mut window = started.elapsed();
    let mut killed = 0_u32;
    for round in 0..60_u32 {
        let command = if round % 4 == 3 { "DEL" } else { "ADD" };
        if command == "DEL" {
            let _ = site.run(&call("ADD")).ok();
        }
        let mut running = call(command).start(&site.node, &site.podwire);
        thread::sleep(window * (round * 37 % 60) / 60);
        running.kill();
        if running.finish().exit.is_none() {
            killed += 1;
            window += window / 16;
        } else {
            window -= window / 8;
        }
        let what = format!("{}: round {round}, {command}", site.conf);
        let done = site.run(&del(round));
        assert!(done.succeeded(), "{what}: {done}");
        site.world(&[]).must_be(&before, &what);
    }
    assert!(killed > 15, "{}: only {killed} of 60 kills hit", site.conf);
}

/// A `PATH` with only these iptables programs, under their usual names.
pub(crate) fn path_with(kind: &str) -> tempfile::TempDir {
    path_with_kinds([kind; 2])
}

/// The same with those of one kind for IPv4, and of another for IPv6.
pub(crate) fn path_with_kinds(kinds: [&str; 2]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("there is room for files");
    for (family, kind) in ["iptables", "ip6tables"].into_iter().zip(kinds) {
        for verb in ["restore", "save"] {
            let program = format!("/usr/sbin/{family}-{kind}-{verb}");
            symlink(program, folder.path().join(format!("{family}-{verb}"))).expect("it is ours");
        }
    }
    folder
}

/// A `PATH` with only these iptables programs, which are a script that gets the name they are called by.
pub(crate) fn path_with_script(file: &str, script: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("there is room for files");
    let file = folder.path().join(file);
    fs::write(&file, format!("#!/bin/sh\n{script}\n")).expect("it is ours");
    fs::set_permissions(&file, Permissions::from_mode(0o755)).expect("it is ours");
    for family in ["iptables", "ip6tables"] {
        for verb in ["restore", "save"] {
            let name = folder.path().join(format!("{family}-{verb}"));
            symlink(&file, name).expect("it is ours");
        }
    }
    folder
}

/// Where the tables are those of nf_tables an ADD makes, without a program, what the programs would make: for them there
/// is no difference.
pub(crate) fn made_as_by_programs(site: &Site, call: &dyn Fn(&'static str) -> Call) {
    let refusing = path_with_script("refusing-nft", "exit 1");
    // Of programs with such a name it is not known that they keep their tables in nf_tables.
    let script = "name=${0##*/}; exec /usr/sbin/${name%-*}-nft-${name##*-} \"$@\"";
    let writing = path_with_script("legacy", script);
    let save = || site.node.sh("iptables-save; ip6tables-save");
    let rules = || save().lines().filter(|it| !it.starts_with('#')).map(counted_nothing).collect();
    let (before, tables): (_, Vec<String>) = (site.world(&[]), rules());
    let mut made: Vec<Vec<String>> = Vec::new();
    for path in [&refusing, &writing] {
        let path = path.path().to_str().expect("temporary names are ASCII");
        let add = site.run(&call("ADD").env("PATH", path));
        assert!(add.succeeded() && add.stderr.is_empty(), "{}: {add}", site.conf);
        made.push(rules());
        let _ = site.run(&call("DEL")).ok();
        site.world(&[]).must_be(&before, &site.conf.to_string());
    }
    assert_ne!(made[0], tables);
    assert_eq!(made[0], made[1], "{}", site.conf);
}

/// A line that declares a chain, without how many packets came there.
fn counted_nothing(line: &str) -> String {
    line.split(" [").next().unwrap_or_default().to_owned()
}

/// A chain that somebody else's rule leads to cannot go.
#[test]
fn a_foreign_jump_to_the_chain_of_a_hardware_address_does_not_keep_its_rules() {
    let mut conf = bridge_with_all();
    conf["macspoofchk"] = json!(true);
    let site = Site::new(conf);
    let pod = site.node.pod("pod1");
    let result = site.add(&pod).ok();
    site.node.sh(
        "nft 'add chain bridge nat foreign; add rule bridge nat foreign jump cni-br-iface-pod1-eth0'",
    );
    let conf = site.conf_with(&json!({"prevResult": result}));
    for _ in 0..2 {
        let _ = site.run(&site.call("DEL", &pod).conf(&conf)).ok();
        let left = site.node.sh("nft --stateless list table bridge nat");
        let left: Vec<_> = left.lines().map(str::trim).filter(|it| it.contains("cni-br")).collect();
        assert_eq!(left, ["chain cni-br-iface-pod1-eth0 {", "jump cni-br-iface-pod1-eth0"]);
        assert!(!site.node.sh("nft list table bridge nat").contains("macspoofchk"));
    }
    // The next one of the name has it.
    let result = site.add(&pod).ok();
    let conf = site.conf_with(&json!({"prevResult": result}));
    let _ = site.run(&site.call("CHECK", &pod).conf(&conf)).ok();
    site.node.sh("nft delete chain bridge nat foreign");
    let _ = site.run(&site.call("DEL", &pod).conf(&conf)).ok();
    assert!(!site.node.sh("nft list table bridge nat").contains("cni-br"));
}
