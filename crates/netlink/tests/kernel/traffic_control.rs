//! Limits and redirections, as the program tc shows them.

use netlink::{Discipline, Link, NetworkLimit, OtherEnd, Request, Socket, TokenBucket};
use netns::Netns;
use nix::errno::Errno;

use crate::space::{cidr, namespace, run, socket, veth};

/// The host's end of a pair, and what keeps it.
fn host_end() -> (Netns, Netns, Socket, Link) {
    let (netns, container) = (namespace(), namespace());
    let mut host = socket(&netns);
    let link = veth(&mut host, &container, None);
    (netns, container, host, link)
}

fn tc(netns: &Netns, args: &str) -> String {
    let _entered = netns.enter().unwrap();
    run("tc", &args.split(' ').collect::<Vec<_>>(), "")
}

#[test]
fn a_token_bucket_is_what_tc_shows() {
    let (netns, _container, mut host, link) = host_end();
    let bucket = TokenBucket { rate: 1_000_000, buffer: 156_250, limit: 35_000 };
    host.execute(&[Request::add_token_bucket(link.index, "veth0", &bucket)]).unwrap();
    let shown = tc(&netns, "qdisc show dev veth0");
    assert!(
        shown.starts_with("qdisc tbf 1: root refcnt 2 rate 8Mbit burst 10000b lat 25ms"),
        "{shown}"
    );
    assert_eq!(host.disciplines(link.index, "veth0").unwrap(), [Discipline::TokenBucket(bucket)]);
    let again = host.execute(&[Request::add_token_bucket(link.index, "veth0", &bucket)]);
    assert_eq!(again.unwrap_err().errno(), Some(Errno::EEXIST));
    host.execute(&[Request::delete_limit(link.index, "veth0")]).unwrap();
    assert_eq!(host.disciplines(link.index, "veth0").unwrap(), []);
}

#[test]
fn a_rate_of_more_than_32_bits_is_kept() {
    let (netns, _container, mut host, link) = host_end();
    let bucket = TokenBucket { rate: 12_500_000_000, buffer: 15_625, limit: 400_000_000 };
    host.execute(&[Request::add_token_bucket(link.index, "veth0", &bucket)]).unwrap();
    let shown = tc(&netns, "qdisc show dev veth0");
    assert!(shown.contains("rate 100Gbit"), "{shown}");
    assert_eq!(host.disciplines(link.index, "veth0").unwrap(), [Discipline::TokenBucket(bucket)]);
}

#[test]
fn a_limit_of_some_networks_is_what_tc_shows() {
    let networks = ["10.0.0.0/8", "192.0.2.1/32", "0.0.0.0/0", "fd00::/56", "fd09::9/128", "::/0"];
    for (is_of_networks, other_end) in
        [(true, OtherEnd::Destination), (false, OtherEnd::Source), (false, OtherEnd::Destination)]
    {
        let (netns, _container, mut host, link) = host_end();
        assert_eq!(host.network_limit(link.index, "veth0").unwrap(), None);
        let limit = NetworkLimit {
            bucket: TokenBucket { rate: 1_000_000, buffer: 156_250, limit: 35_000 },
            other_end,
            networks: networks.map(cidr).into(),
            is_of_networks,
        };
        host.execute(&Request::add_network_limit(link.index, "veth0", &limit)).unwrap();
        let shown = tc(&netns, "qdisc show dev veth0");
        let default = if is_of_networks { "default 0 " } else { "default 0x1 " };
        assert!(shown.contains("htb 1: root") && shown.contains(default), "{shown}");
        assert!(shown.contains("bfifo 2: parent 1:1 limit 35000b"), "{shown}");
        let shown = tc(&netns, "class show dev veth0");
        assert!(shown.contains("rate 8Mbit ceil 8Mbit burst 10000b cburst 10000b"), "{shown}");
        let shown = tc(&netns, "-pretty filter show dev veth0");
        let side = if other_end == OtherEnd::Source { "src" } else { "dst" };
        for network in ["10.0.0.0/8", "192.0.2.1/32", "0.0.0.0/0"] {
            assert!(shown.contains(&format!("{side} {network}")), "{network}: {shown}");
        }
        let mut held = host.network_limit(link.index, "veth0").unwrap().unwrap();
        held.networks.sort();
        assert_eq!(
            held,
            NetworkLimit {
                networks: {
                    let mut it = limit.networks.clone();
                    it.sort();
                    it
                },
                ..limit
            }
        );
        assert_eq!(host.disciplines(link.index, "veth0").unwrap(), [Discipline::NetworkLimit]);
        host.execute(&[Request::delete_limit(link.index, "veth0")]).unwrap();
        assert_eq!(host.disciplines(link.index, "veth0").unwrap(), []);
    }
}

#[test]
fn what_others_set_is_told_apart() {
    let (netns, _container, mut host, link) = host_end();
    tc(&netns, "qdisc add dev veth0 root handle 5: pfifo limit 10");
    tc(&netns, "qdisc add dev veth0 ingress");
    let mut held = host.disciplines(link.index, "veth0").unwrap();
    held.sort_by_key(|it| *it == Discipline::Filters);
    assert_eq!(held, [Discipline::OtherRoot, Discipline::Filters]);
    let refused = host.execute(&[Request::add_filters(link.index, "veth0")]);
    assert_eq!(refused.unwrap_err().errno(), Some(Errno::EEXIST));
}

#[test]
fn what_a_link_receives_is_redirected_after_the_filters_of_others() {
    for place in ["ingress", "clsact", "ours"] {
        let (netns, _container, mut host, link) = host_end();
        let ifb = host.create_link(Request::create_ifb("ifb9", 1300), "ifb9").unwrap();
        assert_eq!((ifb.kind.as_str(), ifb.mtu, ifb.is_up), ("ifb", 1300, true));
        host.execute(&[Request::set_alias(ifb.index, "ifb9", "whose it is")]).unwrap();
        let alias = host.link_by_name("ifb9").unwrap().unwrap().alias;
        assert_eq!(alias.as_deref(), Some("whose it is"));
        match place {
            "ours" => host.execute(&[Request::add_filters(link.index, "veth0")]).unwrap(),
            others => _ = tc(&netns, &format!("qdisc add dev veth0 {others}")),
        }
        assert_eq!(host.redirects(link.index, "veth0").unwrap(), []);
        host.execute(&[Request::redirect_received(link.index, "veth0", ifb.index)]).unwrap();
        assert_eq!(host.redirects(link.index, "veth0").unwrap(), [ifb.index]);
        tc(&netns, "filter add dev veth0 ingress prio 1 protocol all u32 match u32 0 0 flowid 1:1");
        let shown = tc(&netns, "filter show dev veth0 ingress");
        let (others, ours) = (shown.find("pref 1 u32").unwrap(), shown.find("pref 49152 u32"));
        assert!(ours.is_some_and(|it| it > others), "{shown}");
        assert!(shown.contains("mirred (Egress Redirect to device ifb9) stolen"), "{shown}");
        assert_eq!(host.redirects(link.index, "veth0").unwrap(), [ifb.index]);
        let before = host.disciplines(link.index, "veth0").unwrap();
        assert_eq!(before, [Discipline::Filters], "{place}");
        // One of somebody else, of the same priority, and one that leads elsewhere, stay.
        tc(
            &netns,
            "filter add dev veth0 ingress prio 49152 protocol all u32 match u32 1 1 flowid 1:2",
        );
        tc(
            &netns,
            "filter add dev veth0 ingress prio 7 protocol all u32 match u32 0 0 action mirred egress redirect dev lo",
        );
        for _ in 0..2 {
            host.end_redirects(link.index, "veth0", ifb.index).unwrap();
            assert_eq!(host.redirects(link.index, "veth0").unwrap().len(), 1);
            let shown = tc(&netns, "filter show dev veth0 ingress");
            assert!(!shown.contains("ifb9") && shown.contains("00000001/00000001"), "{shown}");
        }
        if place != "ingress" {
            host.execute(&[Request::delete_filters(link.index, "veth0")]).unwrap();
            assert_eq!(host.disciplines(link.index, "veth0").unwrap(), []);
        }
    }
}
