//! Hearing of links and of changes in nf_tables.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use netlink::nftables::{Changes, Client, Generation};
use netlink::{BridgeFiltering, Event, Link, LinkChange, LinkChanges, Request, Socket};
use runner::{OsRunner, Program, Runner as _};

use crate::space::{bridge, heard, move_away, namespace, numbered_veth, run, told, veth};

fn links(changes: &mut LinkChanges, mut enough: impl FnMut(&LinkChange) -> bool) {
    let is_it = |event: &Event<LinkChange>| matches!(event, Event::Heard(it) if enough(it));
    let mut is_it = is_it;
    heard(changes, LinkChanges::receive, |events| events.last().is_some_and(&mut is_it));
}

#[test]
fn links_are_told_as_they_come_change_and_go() {
    move_away();
    let (mut changes, mut host) = (LinkChanges::open().unwrap(), Socket::open().unwrap());
    assert!(changes.receive().unwrap().is_none());
    let bridge = bridge(&mut host);
    let is = |change: &LinkChange, index, wanted: &dyn Fn(&Link) -> bool| matches!(change, LinkChange::Is(link) if link.index == index && wanted(link));
    links(&mut changes, |it| is(it, bridge.index, &|link| link.name == "br0" && link.is_up));

    let container = namespace();
    let port = veth(&mut host, &container, Some(bridge.index));
    links(&mut changes, |it| is(it, port.index, &|link| link.controller == Some(bridge.index)));

    // A port that leaves its bridge stays a link.
    run("ip", &["link", "set", "veth0", "nomaster"], "");
    let mut gone = Vec::new();
    links(&mut changes, |it| {
        gone.extend(matches!(it, LinkChange::Gone { .. }).then(|| it.clone()));
        is(it, port.index, &|link| link.controller.is_none())
    });
    assert_eq!(gone, []);

    let filtering = BridgeFiltering::BOTH;
    host.set_bridge_filtering(&bridge, filtering).unwrap();
    links(&mut changes, |it| is(it, bridge.index, &|link| link.filtering == Some(filtering)));

    host.execute(&[Request::delete_link("veth0")]).unwrap();
    let wanted = LinkChange::Gone { index: port.index, name: "veth0".into() };
    links(&mut changes, |it| *it == wanted);
}

#[test]
fn links_that_were_missed_are_told_as_missed() {
    move_away();
    let (mut changes, mut host) = (LinkChanges::open().unwrap(), Socket::open().unwrap());
    let bridge = bridge(&mut host);
    for _ in 0..2000 {
        host.execute(&[
            Request::set_down(bridge.index, "br0"),
            Request::set_up(bridge.index, "br0"),
        ])
        .unwrap();
    }
    // Nothing of what came before is told after it.
    assert_eq!(changes.receive().unwrap(), Some(vec![Event::Missed]));
    assert_eq!(changes.receive().unwrap(), None);
    let container = namespace();
    let port = numbered_veth(&mut host, 1, &container, None);
    links(&mut changes, |it| matches!(it, LinkChange::Is(link) if link.index == port.index));
}

fn generations(changes: &mut Changes) -> Vec<Generation> {
    told(heard(changes, Changes::receive, |events| !events.is_empty()))
}

#[test]
fn changes_in_nf_tables_are_told_with_who_made_them() {
    move_away();
    let mut client = Client::open().unwrap().unwrap();
    let mut changes = Changes::open().unwrap();
    let before = client.generation().unwrap().unwrap();
    assert_eq!(client.generation().unwrap().unwrap(), before);
    assert_eq!(changes.receive().unwrap(), None);

    let program = Program {
        file: "sh".into(),
        args: &["-c", "echo $$; exec nft -f -"],
        stdin: b"table ip filter {\n chain POD {\n drop\n }\n}\n",
        ..Program::default()
    };
    let output = OsRunner.run(&program).unwrap();
    let process_id: u32 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();

    let told = generations(&mut changes);
    let wanted = Generation {
        id: before + 1,
        process_id,
        process_name: "nft".into(),
        port: process_id,
        tables: BTreeSet::from(["filter".to_owned()]),
    };
    assert_eq!(told, [wanted]);
    assert_eq!(client.generation().unwrap().unwrap(), before + 1);

    run("nft", &["-f", "-"], "flush chain ip filter POD\n");
    let [told] = generations(&mut changes).try_into().unwrap();
    assert_eq!((told.id, told.process_name.as_str()), (before + 2, "nft"));
    let two = "add table inet first\nadd set inet first s { type ipv4_addr; }\n\
        add table ip second\nadd chain ip second c\n";
    run("nft", &["-f", "-"], two);
    run("nft", &["-f", "-"], "add element inet first s { 192.0.2.1 }\n");
    let told: Vec<_> = generations(&mut changes);
    let told = if told.len() == 2 { told } else { [told, generations(&mut changes)].concat() };
    let [both, one] = told.try_into().unwrap();
    assert_eq!(both.tables, ["first", "second"].map(str::to_owned).into());
    assert_eq!(one.tables, ["first".to_owned()].into());
    assert_eq!(changes.receive().unwrap(), None);
}

#[test]
fn changes_of_other_namespaces_are_not_told() {
    move_away();
    let mut changes = Changes::open().unwrap();
    let other = namespace();
    let _entered = other.enter().unwrap();
    run("nft", &["-f", "-"], "add table ip elsewhere\n");
    assert_eq!(changes.receive().unwrap(), None);
}

#[test]
fn a_large_change_is_told_as_missed() {
    move_away();
    let mut client = Client::open().unwrap().unwrap();
    let mut changes = Changes::open().unwrap();
    // In thousands of datagrams, after a first for which there is room.
    let first = u32::from(Ipv4Addr::new(10, 0, 0, 0));
    let elements: Vec<_> =
        (first..first + 250_000).map(|it| Ipv4Addr::from(it).to_string()).collect();
    let few = elements[..5000].join(", ");
    run(
        "nft",
        &["-f", "-"],
        &format!(
            "table ip t {{\nset s {{\ntype ipv4_addr\n}}\n}}\nadd element ip t s {{ {few} }}\n"
        ),
    );
    let [first] = generations(&mut changes).try_into().unwrap();
    assert_eq!(first.id, client.generation().unwrap().unwrap());
    run("nft", &["-f", "-"], &format!("add element ip t s {{ {} }}\n", elements.join(", ")));
    assert_eq!(changes.receive().unwrap(), Some(vec![Event::Missed]));
    assert_eq!(changes.receive().unwrap(), None);
    run("nft", &["-f", "-"], "add table ip small\n");
    let [told] = generations(&mut changes).try_into().unwrap();
    assert_eq!(told.id, client.generation().unwrap().unwrap());
}
