//! portmap by nf_tables looks at what it must, and no more: what it leaves unread is told by maps that count, which
//! must be right whatever happened.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use lab::Reply;
use serde_json::{Value, json};

use crate::common::Site;
use crate::portmap::{call, conf, result};

const TABLE: &str = "inet podwire-portmap";
/// The maps and sets of elements, of both families.
const SETS: [&str; 3] = ["ports", "addresses", "masqueraded"];
/// What podwire's table had before instead: container 1 has port 8080 of 192.0.2.1, container 3 port 7070.
const FORMER: &str = include_str!("portmap-former.nft");

fn of(host_ip: &str, port: u16) -> Value {
    json!({"hostPort": port, "containerPort": 80, "protocol": "tcp", "hostIP": host_ip})
}

fn run(site: &Site, command: &str, number: u16, keys: &Value) -> Reply {
    let mut all = json!({"prevResult": result(number)});
    all.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    let call = call(site, command, number).conf(&site.conf_with(&all));
    site.run(&if command == "GC" {
        call.unset("CNI_CONTAINERID").unset("CNI_IFNAME")
    } else {
        call
    })
}

/// A node that has what stays: what all share, of every kind.
fn site(backend: &str) -> Site {
    let site = Site::new(conf(backend));
    let all = json!([of("", 1), of("192.0.2.1", 2), of("2001:db8::1", 3)]);
    for masq_all in [false, true] {
        let keys = json!({"masqAll": masq_all, "runtimeConfig": {"portMappings": all}});
        let _ = run(&site, "ADD", 0, &keys).ok();
        let _ = run(&site, "DEL", 0, &keys).ok();
    }
    site
}

fn publishing(mappings: &Value) -> Value {
    json!({"runtimeConfig": {"portMappings": mappings}})
}

/// The elements of a set without their comments; none where there is no such set.
fn elements(site: &Site, set: &str) -> Vec<String> {
    let kind = if set.starts_with("masqueraded") { "set" } else { "map" };
    let text = site.node.sh(&format!("nft list {kind} {TABLE} {set} || true"));
    // Outside of quotes.
    let bare: String = text.split('"').step_by(2).collect();
    let Some((_, list)) = bare.split_once("elements = {") else { return Vec::new() };
    let list = list.split('}').next().unwrap_or_default();
    list.split(',').map(|it| it.trim().to_owned()).collect()
}

/// The names of the sets and maps of elements.
fn sets(site: &Site) -> Vec<String> {
    let text = site.node.sh(&format!("nft list table {TABLE}"));
    let names = text.lines().filter_map(|line| {
        let line = line.trim();
        let name = line.strip_prefix("map ").or_else(|| line.strip_prefix("set "))?;
        name.strip_suffix(" {")
    });
    let names = names.filter(|name| SETS.iter().any(|it| name.starts_with(it)));
    names.map(str::to_owned).collect()
}

/// By whose they are, and by the ports that are published of one address: how many elements there are.
fn counted(site: &Site) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let text = site.node.sh(&format!("nft list table {TABLE}"));
    for comment in text.split("comment \"").skip(1) {
        if let Some((network, attachment)) = comment.get(..33).and_then(|it| it.split_once('-')) {
            let digits = u128::from_str_radix(&format!("{network}{attachment}"), 16);
            if let Ok(hashes) = digits.map(Ipv6Addr::from) {
                *counts.entry(hashes.to_string()).or_default() += 1;
            }
        }
    }
    for set in sets(site).iter().filter(|it| it.starts_with("addresses")) {
        for element in elements(site, set) {
            let key = element.split(" comment").next().unwrap_or_default();
            let (_, port) = key.split_once(" . ").expect("an address, a protocol and a port");
            *counts.entry(port.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// The same as the maps have it.
fn index(site: &Site) -> BTreeMap<String, usize> {
    let all = [elements(site, "attachments"), elements(site, "bound")].concat();
    let read = all.iter().map(|it| {
        let (key, count) = it.rsplit_once(" : ").expect("a map's element");
        (key.to_owned(), count.parse().expect("a number"))
    });
    read.collect()
}

fn must_be_counted(site: &Site, what: &str) {
    assert_eq!(index(site), counted(site), "{what}");
}

/// Whatever comes and goes, and by whatever way it is found.
#[test]
fn the_index_is_right_whatever_comes_and_goes() {
    let site = site("nftables");
    let before = site.world(&[]);
    let all = publishing(&json!([of("", 8080), of("192.0.2.1", 8081), of("2001:db8::1", 8081)]));
    let one = publishing(&json!([of("192.0.2.2", 8081), of("192.0.2.2", 8082)]));
    let both_ways = publishing(&json!([of("192.0.2.3", 8083), of("", 8083)]));
    let none = json!({"runtimeConfig": null});
    let other_class = |keys: &Value| {
        let mut keys = keys.clone();
        keys["markMasqBit"] = json!(5);
        keys
    };
    let unmasqueraded = json!({"snat": false, "runtimeConfig": one["runtimeConfig"]});
    let everybody = json!({"masqAll": true, "runtimeConfig": both_ways["runtimeConfig"]});
    let valid = |numbers: &[u16]| -> Value {
        let of = |it: &u16| json!({"containerID": format!("container-{it}"), "ifname": "eth0"});
        json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": numbers.iter().map(of).collect::<Vec<_>>()})
    };
    let steps: [(&str, u16, &Value); 25] = [
        ("ADD", 1, &all),
        ("ADD", 2, &one),
        ("CHECK", 1, &all),
        ("CHECK", 2, &one),
        ("ADD", 3, &both_ways),
        ("CHECK", 3, &both_ways),
        // Again, with other ports, and in another class.
        ("ADD", 1, &all),
        ("ADD", 2, &other_class(&one)),
        ("CHECK", 2, &other_class(&one)),
        ("DEL", 2, &none),
        ("ADD", 2, &unmasqueraded),
        ("CHECK", 2, &unmasqueraded),
        ("ADD", 3, &everybody),
        ("CHECK", 3, &everybody),
        ("DEL", 1, &all),
        ("DEL", 1, &all),
        // Not what was published.
        ("DEL", 3, &one),
        ("DEL", 2, &other_class(&all)),
        ("ADD", 1, &other_class(&all)),
        ("ADD", 2, &one),
        ("ADD", 3, &both_ways),
        ("GC", 0, &valid(&[2, 3])),
        ("DEL", 2, &none),
        ("GC", 0, &valid(&[])),
        ("DEL", 3, &both_ways),
    ];
    for (place, (command, number, keys)) in steps.into_iter().enumerate() {
        let what = format!("step {place}: {command} {number}");
        let reply = run(&site, command, number, keys);
        assert!(reply.succeeded(), "{what}: {reply}");
        must_be_counted(&site, &what);
    }
    site.world(&[]).must_be(&before, "all have gone");
}

/// Who wants a port of all addresses meets who has it of one, and the other way round.
#[test]
fn ports_of_one_address_and_of_all_are_in_each_others_way() {
    for backend in ["iptables", "nftables"] {
        let site = site(backend);
        let before = site.world(&[]);
        for (first, second, meets) in [
            ("192.0.2.1", "", true),
            ("", "192.0.2.1", true),
            ("192.0.2.1", "0.0.0.0", true),
            ("2001:db8::1", "::", true),
            ("::", "2001:db8::1", true),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::", false),
            ("0.0.0.0", "2001:db8::1", false),
        ] {
            let what = format!("{backend}: {first:?}, then {second:?}");
            let (first, second) = (json!([of(first, 8080)]), json!([of(second, 8080)]));
            let _ = run(&site, "ADD", 1, &publishing(&first)).ok();
            // Nobody is at the first one's address.
            let reply = run(&site, "ADD", 2, &publishing(&second));
            let _ = reply.ok();
            assert_eq!(reply.stderr.contains("is taken from"), meets, "{what}: {reply}");
            assert_eq!(
                run(&site, "CHECK", 1, &publishing(&first)).succeeded(),
                !meets,
                "{what}: the first one"
            );
            let _ = run(&site, "CHECK", 2, &publishing(&second)).ok();
            for (number, mappings) in [(1, &first), (2, &second)] {
                let _ = run(&site, "DEL", number, &publishing(mappings)).ok();
            }
            site.world(&[]).must_be(&before, &what);
        }
    }
}

/// DEL takes all that there is, whatever its configuration knows of it.
#[test]
fn del_needs_to_know_nothing() {
    let published = json!([of("", 8080), of("192.0.2.1", 8081), of("2001:db8::1", 8081)]);
    for backend in ["iptables", "nftables"] {
        let site = site(backend);
        let before = site.world(&[]);
        for keys in [
            json!({"runtimeConfig": null, "prevResult": null}),
            publishing(&json!([])),
            publishing(&json!([of("", 9090)])),
            publishing(&json!([of("", 8080)])),
            publishing(&json!([of("192.0.2.1", 8080), of("", 8081)])),
            json!({"markMasqBit": 3, "runtimeConfig": {"portMappings": published}}),
            json!({"backend": "nonsense", "runtimeConfig": {"portMappings": "nonsense"}}),
        ] {
            let _ = run(&site, "ADD", 1, &publishing(&published)).ok();
            let _ = run(&site, "ADD", 2, &publishing(&json!([of("", 7070)]))).ok();
            let _ = run(&site, "DEL", 1, &keys).ok();
            let _ = run(&site, "CHECK", 2, &publishing(&json!([of("", 7070)]))).ok();
            let _ = run(&site, "DEL", 2, &publishing(&json!([of("", 7070)]))).ok();
            site.world(&[]).must_be(&before, &format!("{backend}: {keys}"));
        }
    }
}

/// Attachments with the same conditions share a chain and maps, which go with the last of them and with nobody else.
#[test]
fn what_some_share_stays_until_the_last_of_them_goes() {
    let site = site("nftables");
    let before = site.world(&[]);
    let plain = publishing(&json!([of("", 8080)]));
    let with = |keys: Value, port: u16| {
        let mut all = publishing(&json!([of("", port)]));
        all.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        all
    };
    let conditions = json!({"conditionsV4": ["ip", "saddr", "192.0.2.0/24"]});
    let others = [with(conditions.clone(), 8081), with(json!({"markMasqBit": 5}), 8082)];
    let untold = json!({"runtimeConfig": null, "prevResult": null});
    for (is_plain_first, told) in
        [(false, &plain), (true, &plain), (false, &untold), (true, &untold)]
    {
        let mut all = vec![(1, &others[0]), (2, &others[1]), (4, &others[0])];
        all.insert(if is_plain_first { 0 } else { 3 }, (3, &plain));
        // The same ports cannot be two containers'.
        let fourth = with(conditions.clone(), 8084);
        let all = all.into_iter().map(|it| if it.0 == 4 { (4, &fourth) } else { it });
        for (number, keys) in all {
            let _ = run(&site, "ADD", number, keys).ok();
        }
        let _ = run(&site, "DEL", 3, told).ok();
        for (number, keys) in [(1, &others[0]), (2, &others[1]), (4, &fourth)] {
            let _ = run(&site, "CHECK", number, keys).ok();
        }
        let _ = run(&site, "DEL", 1, &others[0]).ok();
        let _ = run(&site, "CHECK", 4, &fourth).ok();
        let _ = run(&site, "DEL", 4, &fourth).ok();
        let _ = run(&site, "DEL", 2, &others[1]).ok();
        site.world(&[]).must_be(&before, &format!("{is_plain_first} {told}"));
    }
    // Who takes the port of the last one, whose container has gone, takes that too; and who comes again without conditions.
    let chain = "nft -s list table inet podwire-portmap | grep -o 'hostports-[0-9a-z]*' | head -1";
    for (first, second, is_taken) in [(1, 2, false), (1, 1, false), (1, 2, true)] {
        let _ = run(&site, "ADD", first, &with(conditions.clone(), 8080)).ok();
        // Whoever takes rules away.
        if is_taken {
            site.node.sh(&format!("nft flush chain {TABLE} prerouting; nft flush chain {TABLE} output; nft delete chain {TABLE} $({chain})"));
        }
        let _ = run(&site, "ADD", second, &plain).ok();
        let _ = run(&site, "CHECK", second, &plain).ok();
        let _ = run(&site, "DEL", second, &plain).ok();
        site.world(&[]).must_be(&before, "taken");
    }
}

/// Of other ports and of other containers ADD and DEL read nothing, whatever number there is. Here they would see what
/// nobody has counted: an element of the container's own, which they would remove, and one in the way of a port.
#[test]
fn what_others_have_published_is_not_read() {
    let site = site("nftables");
    let ports = publishing(&json!([of("", 8080)]));
    let _ = run(&site, "ADD", 1, &ports).ok();
    let own = site.node.sh(&format!("nft list map {TABLE} ports4"));
    let comment = own.split('"').nth(1).expect("an element has a comment").to_owned();
    let _ = run(&site, "DEL", 1, &ports).ok();
    let uncounted = [
        ("ports4", format!("tcp . 1 comment \"{comment}\" : 10.1.9.9 . 80")),
        ("addresses4", format!("192.0.2.9 . tcp . 8080 comment \"{comment}\" : 10.1.9.9 . 80")),
    ];
    for (set, element) in &uncounted {
        site.node.sh(&format!("nft add element {TABLE} {set} '{{ {element} }}'"));
    }
    for command in ["ADD", "CHECK", "DEL"] {
        let reply = run(&site, command, 1, &ports);
        assert!(reply.succeeded() && reply.stderr.is_empty(), "{command}: {reply}");
        for (set, element) in &uncounted {
            let key = element.split(" comment").next().unwrap();
            let left = elements(&site, set);
            assert!(left.iter().any(|it| it.starts_with(key)), "{command}, {set}: {left:?}");
        }
    }
    // One that must be read all finds them.
    let _ = run(&site, "DEL", 1, &publishing(&json!([of("", 1)]))).ok();
    assert_eq!(counted(&site), BTreeMap::new());
    must_be_counted(&site, "after a DEL that has read all");
}

/// A table of the layout before, which had no index, and sets of intervals: conflicts are seen in it, its attachments
/// are checked, replaced and removed.
#[test]
fn a_table_of_the_layout_before_is_served() {
    let site = site("nftables");
    let (one, two) =
        (publishing(&json!([of("192.0.2.1", 8080)])), publishing(&json!([of("", 8080)])));
    let (three, other) = (publishing(&json!([of("", 7070)])), publishing(&json!([of("", 6060)])));
    let load = || {
        let _ = run(&site, "ADD", 1, &one).ok();
        let _ = run(&site, "ADD", 3, &three).ok();
        let masqueraded = sets(&site).into_iter().filter(|it| it.starts_with("masqueraded"));
        let mut script = format!("flush chain {TABLE} hostports\n");
        for set in masqueraded {
            script += &format!("delete set {TABLE} {set}\n");
        }
        for map in ["attachments", "bound"] {
            script += &format!("delete map {TABLE} {map}\n");
        }
        let file = site.node.home().join("former.nft");
        std::fs::write(&file, script + FORMER).unwrap();
        site.node.sh(&format!("nft -f {}", file.display()));
        let _ = run(&site, "CHECK", 1, &one).ok();
        let _ = run(&site, "CHECK", 3, &three).ok();
        let _ = run(&site, "CHECK", 1, &two).expect_error(102);
    };
    // They go, and what others have stays as it was.
    load();
    let before = site.world(&[]);
    let _ = run(&site, "DEL", 2, &two).ok();
    site.world(&[]).must_be(&before, "who has nothing");
    for (number, keys) in [(1, &one), (3, &json!({"runtimeConfig": null}))] {
        let _ = run(&site, "DEL", number, keys).ok();
    }
    assert_eq!(counted(&site), BTreeMap::new());
    // The first ADD counts all, and those of before are served on.
    load();
    let _ = run(&site, "ADD", 4, &other).ok();
    must_be_counted(&site, "after the first ADD");
    for (number, keys) in [(1, &one), (3, &three), (4, &other)] {
        let _ = run(&site, "CHECK", number, keys).ok();
    }
    let reply = run(&site, "ADD", 2, &two);
    assert!(reply.succeeded() && reply.stderr.contains("is taken from"), "{reply}");
    must_be_counted(&site, "after one that has taken a port");
    let _ = run(&site, "ADD", 3, &three).ok();
    let _ = run(&site, "CHECK", 3, &three).ok();
    for (number, keys) in [(2, &two), (3, &json!({"runtimeConfig": null})), (4, &other)] {
        let _ = run(&site, "DEL", number, keys).ok();
        must_be_counted(&site, "after a DEL");
    }
    assert_eq!(counted(&site), BTreeMap::new());
}

/// An index that is wrong is put right by who finds that it is.
#[test]
fn what_is_counted_wrongly_is_counted_again() {
    let site = site("nftables");
    let before = site.world(&[]);
    let ports = publishing(&json!([of("", 8080)]));
    let _ = run(&site, "ADD", 1, &ports).ok();
    let _ = run(&site, "ADD", 2, &publishing(&json!([of("", 9090)]))).ok();
    site.node.sh(&format!("nft flush map {TABLE} attachments; nft flush map {TABLE} bound"));
    let _ = run(&site, "CHECK", 1, &ports).ok();
    let _ = run(&site, "DEL", 1, &ports).ok();
    must_be_counted(&site, "after a DEL");
    let _ = run(&site, "DEL", 2, &json!({"runtimeConfig": null})).ok();
    site.world(&[]).must_be(&before, "all have gone");
}
