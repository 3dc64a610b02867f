//! The table that keeps all but IP and ARP from ports of bridges, against the program nft and the kernel.

use std::collections::BTreeSet;

use netlink::nftables::Held;
use nix::errno::Errno;

use crate::space::{names, nf_tables, nft, run};

const TABLE: &str = "mine";

#[test]
fn the_table_is_what_nft_would_write() {
    let mut client = nf_tables();
    let mut table = client.only_ip(TABLE);
    assert_eq!(table.read().unwrap(), Held::Nothing);
    let ports = names(&["a-name-of-15-by"]);
    table.write(&ports).unwrap();
    assert_eq!(table.read().unwrap(), Held::Ports(ports));
    let shown = run("nft", &["-s", "list", "ruleset"], "");
    let lines: Vec<&str> = shown.lines().map(str::trim).filter(|it| !it.is_empty()).collect();
    let without_comments: Vec<&str> =
        lines.iter().map(|it| it.split(" comment ").next().unwrap()).collect();
    let wanted = [
        "table bridge mine {",
        "set ports {",
        "type ifname",
        r#"elements = { "a-name-of-15-by" }"#,
        "}",
        "chain from-ports {",
        "type filter hook prerouting priority dstnat; policy accept;",
        "ether type != ip ether type != ip6 ether type != arp iifname @ports counter drop",
        "}",
        "chain to-ports {",
        "type filter hook forward priority -300; policy accept;",
        "ether type != ip ether type != ip6 ether type != arp oifname @ports counter drop",
        "}",
        "}",
    ];
    assert_eq!(without_comments, wanted, "{shown}");
    // What nft reads it can write.
    nft("delete table bridge mine\n");
    nft(&shown);
    assert_eq!(table.read().unwrap(), Held::Ports(names(&["a-name-of-15-by"])));
}

#[test]
fn ports_come_and_go() {
    let mut client = nf_tables();
    let before = client.generation().unwrap().unwrap();
    let mut table = client.only_ip(TABLE);
    table.write(&BTreeSet::new()).unwrap();
    assert_eq!(table.read().unwrap(), Held::Ports(BTreeSet::new()));
    let many: BTreeSet<String> = (0..3000).map(|it| format!("veth{it}")).collect();
    table.change(&many, &BTreeSet::new()).unwrap();
    assert_eq!(table.read().unwrap(), Held::Ports(many.clone()));
    // One that is there already may come again.
    table.change(&names(&["veth1", "new"]), &many).unwrap();
    assert_eq!(table.read().unwrap(), Held::Ports(names(&["new"])));
    let error = table.change(&names(&["newer"]), &names(&["gone"])).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ENOENT));
    assert_eq!(table.read().unwrap(), Held::Ports(names(&["new"])));
    // To read changes nothing, nor does what is no change.
    table.change(&BTreeSet::new(), &BTreeSet::new()).unwrap();
    assert_eq!(client.generation().unwrap().unwrap(), before + 3);
    let mut table = client.only_ip(TABLE);
    table.remove().unwrap();
    table.remove().unwrap();
    assert_eq!(table.read().unwrap(), Held::Nothing);
    assert_eq!(run("nft", &["list", "ruleset"], ""), "");
}

#[test]
fn what_others_did_to_it_is_seen_and_written_anew() {
    let mut client = nf_tables();
    let ports = names(&["veth0"]);
    client.only_ip(TABLE).write(&ports).unwrap();
    nft("add table bridge other { set ports { type ifname; elements = { \"x\" } }; }\n\
         add table inet mine\n");
    let others = run("nft", &["list", "table", "bridge", "other"], "");
    for (damage, wanted) in [
        ("delete table bridge mine", Held::Nothing),
        ("add table bridge mine { flags dormant; }", Held::Other),
        ("flush chain bridge mine from-ports", Held::Other),
        ("flush chain bridge mine to-ports; delete chain bridge mine to-ports", Held::Other),
        ("insert rule bridge mine from-ports accept", Held::Other),
        ("add rule bridge mine to-ports accept", Held::Other),
        ("delete table bridge mine; add table bridge mine", Held::Other),
        (
            "delete table bridge mine; add table bridge mine { set ports { type ether_addr; }; }",
            Held::Other,
        ),
        ("add chain bridge mine from-ports { policy drop; }", Held::Other),
        ("flush set bridge mine ports", Held::Ports(BTreeSet::new())),
        // Not ours to judge.
        ("add chain bridge mine another", Held::Ports(ports.clone())),
    ] {
        nft(damage);
        assert_eq!(client.only_ip(TABLE).read().unwrap(), wanted, "{damage}");
        client.only_ip(TABLE).write(&ports).unwrap();
        assert_eq!(client.only_ip(TABLE).read().unwrap(), Held::Ports(ports.clone()), "{damage}");
    }
    client.only_ip(TABLE).remove().unwrap();
    assert_eq!(run("nft", &["list", "tables"], ""), "table bridge other\ntable inet mine\n");
    assert_eq!(run("nft", &["list", "table", "bridge", "other"], ""), others);
}

#[test]
fn a_change_comes_from_the_port_that_is_told() {
    let mut client = nf_tables();
    let mut changes = netlink::nftables::Changes::open().unwrap();
    client.only_ip(TABLE).write(&names(&["veth0"])).unwrap();
    let told = crate::space::heard(&mut changes, netlink::nftables::Changes::receive, |events| {
        !events.is_empty()
    });
    let [told] = crate::space::told(told).try_into().unwrap();
    assert_eq!(told.port, client.port().unwrap());
    assert_eq!(told.tables, names(&[TABLE]));
}
