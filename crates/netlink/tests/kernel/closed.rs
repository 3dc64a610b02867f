//! Closed interfaces, against the program nft and the kernel.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use netlink::Error;
use netlink::nftables::{Client, Sides};

use crate::space::{names, nf_tables, nft, run};

const TABLE: &str = "mine";
const LONGEST: &str = "a-name-of-15-by";

fn tables() -> String {
    run("nft", &["list", "tables"], "")
}

/// Whether what is sent by one end of a pair comes to the other, and back.
fn passes(from: &str) -> bool {
    let sent = ["-4", "-6"].map(|family| {
        let to = if family == "-4" { "192.0.2.2" } else { "2001:db8::2" };
        let script =
            format!("ping {family} -q -c1 -W1 -I {from} {to} >/dev/null && echo yes || true");
        run("sh", &["-c", &script], "") == "yes\n"
    });
    assert_eq!(sent[0], sent[1], "of both families the same");
    sent[0]
}

/// A pair of links between this namespace and one that ends with the process that this starts.
fn pair(name: &str) {
    run(
        "sh",
        &[
            "-ec",
            &format!(
                "ip link add {name} type veth peer name eth0
                 unshare -n sleep 60 </dev/null >/dev/null 2>&1 & pid=$!
                 until [ \"$(readlink /proc/$pid/ns/net)\" != \"$(readlink /proc/self/ns/net)\" ]; do sleep 0.01; done
                 ip link set eth0 netns $pid
                 nsenter -n -t $pid sh -c 'echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad
                     ip addr add 192.0.2.2/24 dev eth0; ip addr add 2001:db8::2/64 dev eth0 nodad
                     ip link set eth0 up'
                 echo 0 > /proc/sys/net/ipv6/conf/{name}/accept_dad
                 ip addr add 192.0.2.1/24 dev {name}; ip addr add 2001:db8::1/64 dev {name} nodad
                 ip link set {name} up"
            ),
        ],
        "",
    );
}

#[test]
fn a_closed_interface_is_what_nft_would_write() {
    let mut client = nf_tables();
    run("ip", &["link", "add", LONGEST, "type", "veth", "peer", "name", "b"], "");
    let mut table = client.closed(TABLE);
    assert_eq!(table.read().unwrap(), BTreeSet::new());
    assert_eq!(table.close(LONGEST).unwrap(), Sides::Both);
    assert_eq!(table.read().unwrap(), names(&[LONGEST]));
    let shown = run("nft", &["list", "ruleset"], "");
    let lines: Vec<&str> = shown.lines().map(str::trim).filter(|it| !it.is_empty()).collect();
    let wanted = [
        "table netdev mine {",
        "chain a-name-of-15-by {",
        "type filter hook ingress device \"a-name-of-15-by\" priority -500; policy drop;",
        "}",
        "chain a-name-of-15-by/egress {",
        "type filter hook egress device \"a-name-of-15-by\" priority -500; policy drop;",
        "}",
        "}",
    ];
    assert_eq!(lines, wanted, "{shown}");
    // What nft reads it can write.
    nft("delete table netdev mine\n");
    nft(&shown);
    let mut table = client.closed(TABLE);
    assert_eq!(table.read().unwrap(), names(&[LONGEST]));
    assert_eq!(table.open(|_| Ok(true)).unwrap(), names(&[LONGEST]));
    assert_eq!(tables(), "");
}

#[test]
fn interfaces_are_closed_and_opened_one_by_one() {
    let mut client = nf_tables();
    for number in 0..3 {
        let (one, other) = (format!("veth{number}"), format!("peer{number}"));
        run("ip", &["link", "add", &one, "type", "veth", "peer", "name", &other], "");
    }
    let before = client.generation().unwrap().unwrap();
    let mut table = client.closed(TABLE);
    // Nothing is there: nothing is written.
    assert_eq!(table.open(|_| Ok(true)).unwrap(), BTreeSet::new());
    table.remove().unwrap();
    assert_eq!(client.generation().unwrap().unwrap(), before);
    let mut table = client.closed(TABLE);
    for name in ["veth0", "veth1", "veth2", "veth1"] {
        assert_eq!(table.close(name).unwrap(), Sides::Both);
    }
    assert_eq!(table.read().unwrap(), names(&["veth0", "veth1", "veth2"]));
    assert_eq!(table.open(|it| Ok(it == "veth1")).unwrap(), names(&["veth1"]));
    // Another table of the family is somebody else's.
    nft(
        "add table netdev other { chain veth0 { type filter hook ingress device lo priority 0; }; }",
    );
    let before = client.generation().unwrap().unwrap();
    let mut table = client.closed(TABLE);
    assert_eq!(table.open(|it| Ok(it == "veth1")).unwrap(), BTreeSet::new());
    assert_eq!(client.generation().unwrap().unwrap(), before);
    let mut table = client.closed(TABLE);
    let failed = table.open(|_| Err(Error::Interrupted { what: "ask".into() }));
    assert!(matches!(failed, Err(Error::Interrupted { .. })));
    assert_eq!(table.read().unwrap(), names(&["veth0", "veth2"]));
    // Half of one, by somebody else.
    nft("delete chain netdev mine veth0\n");
    assert_eq!(table.read().unwrap(), names(&["veth0", "veth2"]));
    assert_eq!(table.open(|it| Ok(it == "veth0")).unwrap(), names(&["veth0"]));
    // A chain of somebody's, with one that is part of its rule.
    nft("add chain netdev mine q\nadd rule netdev mine q ip saddr 192.0.2.1 jump { accept; }\n");
    assert_eq!(table.read().unwrap(), names(&["q", "veth2"]));
    assert_eq!(table.open(|it| Ok(it == "q")).unwrap(), names(&["q"]));
    // Rules in it, and what is in the table besides.
    nft("add rule netdev mine veth2 accept\nadd set netdev mine s { type ifname; }\n");
    assert_eq!(table.open(|_| Ok(true)).unwrap(), names(&["veth2"]));
    assert_eq!(table.read().unwrap(), BTreeSet::new());
    table.remove().unwrap();
    assert_eq!(tables(), "table netdev other\n");
}

#[test]
fn nothing_comes_by_a_closed_interface_or_goes_there() {
    let mut client = nf_tables();
    pair("veth0");
    assert!(passes("veth0"));
    let mut table = client.closed(TABLE);
    assert_eq!(table.close("veth0").unwrap(), Sides::Both);
    let received = || {
        let script = "ip -s -j link show veth0 | grep -o '\"tx\":{[^}]*\"packets\":[0-9]*'";
        run("sh", &["-c", script], "")
    };
    let before = received();
    assert!(!passes("veth0"));
    assert_eq!(received(), before, "nothing was sent");
    // What comes in is dropped by itself, too.
    nft("delete chain netdev mine veth0/egress\n");
    assert!(!passes("veth0"));
    assert_ne!(received(), before, "it was sent, and not answered");
    table.open(|it| Ok(it == "veth0")).unwrap();
    assert!(passes("veth0"));
}

/// The table goes with the last chain: never with one that came meanwhile.
#[test]
fn what_is_closed_while_another_is_opened_stays_closed() {
    let mut client = nf_tables();
    for name in ["veth0", "veth1"] {
        run("ip", &["link", "add", name, "type", "bridge"], "");
    }
    let is_over = AtomicBool::new(false);
    let netns = netns::Netns::open(std::path::Path::new("/proc/thread-self/ns/net")).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _entered = netns.enter().unwrap();
            let mut client = Client::open().unwrap().unwrap();
            let mut table = client.closed(TABLE);
            while !is_over.load(Ordering::Relaxed) {
                table.close("veth0").unwrap();
                assert_eq!(table.open(|it| Ok(it == "veth0")).unwrap(), names(&["veth0"]));
            }
        });
        for _ in 0..200 {
            let mut table = client.closed(TABLE);
            table.close("veth1").unwrap();
            std::thread::yield_now();
            assert!(table.read().unwrap().contains("veth1"));
            assert_eq!(table.open(|it| Ok(it == "veth1")).unwrap(), names(&["veth1"]));
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

/// In newer kernels a chain stays without its interface, and in older ones goes with it: either way
/// it can be opened, and closed again when the name comes back.
#[test]
fn what_is_left_of_an_interface_that_went_can_be_removed() {
    let mut client = nf_tables();
    let add = || run("ip", &["link", "add", "veth0", "type", "bridge"], "");
    let mut table = client.closed(TABLE);
    for _ in 0..2 {
        add();
        table.close("veth0").unwrap();
        run("ip", &["link", "del", "veth0"], "");
        add();
        table.close("veth0").unwrap();
        assert_eq!(table.read().unwrap(), names(&["veth0"]));
        run("ip", &["link", "del", "veth0"], "");
        table.open(|it| Ok(it == "veth0")).unwrap();
        assert_eq!(tables(), "");
    }
}

#[test]
fn a_table_that_sleeps_is_woken() {
    let mut client = nf_tables();
    for name in ["veth0", "veth1"] {
        run(
            "ip",
            &["link", "add", name, "type", "veth", "peer", "name", &format!("{name}-peer")],
            "",
        );
    }
    let sleeps = || run("nft", &["list", "ruleset"], "").contains("dormant");
    let mut table = client.closed(TABLE);
    assert_eq!(table.close("veth0").unwrap(), Sides::Both);
    nft("add table netdev mine { flags dormant; }");
    assert!(sleeps());
    assert_eq!(table.close("veth1").unwrap(), Sides::Both);
    assert!(!sleeps());
    nft("add table netdev mine { flags dormant; }");
    assert_eq!(table.open(|it| Ok(it == "veth1")).unwrap(), names(&["veth1"]));
    assert!(!sleeps());
    assert_eq!(table.read().unwrap(), names(&["veth0"]));
}
