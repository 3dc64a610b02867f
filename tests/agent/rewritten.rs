//! What passes before policy is asked cannot come as something else: whoever may send raw frames has the
//! kernel write a checksum wherever he likes, when it takes apart again what came in fragments.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread::sleep;

use lab::frames::{Ear, Interface};
use lab::slowed;
use lab::sockets::received;

use crate::forged::{SILENCE, settle_and_isolate_b, v6};
use crate::guards::{remove_long_discovery, remove_long_errors};
use crate::node::PolicedNode;

const PORT: u16 = 7802;

fn long(word: &str) -> Vec<u8> {
    format!("{word:_<1300}").into_bytes()
}

#[test]
fn discovery_passes_unasked_only_as_long_as_it_is_in_one_piece() {
    let names = ["a", "b"];
    let mut node = PolicedNode::bridged(&names);
    settle_and_isolate_b(&node, &names);
    let [by_a, by_b] = names.map(|it| Interface::open(node.space(it), "eth0"));
    let ends = names.map(|it| v6(&node, it));
    let ear = Ear::open(node.space("b"), "eth0");
    let words = ["short", "in parts", "long"];
    let heard = || {
        by_a.send_solicitation(by_b.mac(), ends, b"short");
        by_a.send_solicitation_in_parts(by_b.mac(), ends, b"in parts");
        by_a.send_solicitation(by_b.mac(), ends, &long("long"));
        sleep(slowed(SILENCE));
        ear.heard(&words)
    };
    assert_eq!(heard(), ["short"].into());
    node.kill();
    assert_eq!(heard(), ["short"].into());
    node.node.sh("nft delete table netdev podwire-sources");
    assert_eq!(heard(), ["short", "in parts"].into());
    remove_long_discovery(&node);
    assert_eq!(heard(), words.into());
    node.start();
    assert_eq!(heard(), ["short"].into());
    node.clean_up();
}

#[test]
fn errors_come_in_one_piece() {
    let names = ["a", "b"];
    let mut node = PolicedNode::new(&names);
    settle_and_isolate_b(&node, &names);
    let by_a = Interface::open(node.space("a"), "eth0");
    let gateway = Interface::open(&node.node, &node.link_of("a")).mac();
    let ear = Ear::open(node.space("b"), "eth0");
    let at_a = node.listener("a", PORT);
    let by_b = node.listener("b", PORT);
    let words = ["short 4", "in parts 4", "short 6", "in parts 6", "long 6"];
    let heard = |node: &PolicedNode| {
        for (to, from) in node.addresses("a").iter().zip(node.addresses("b")) {
            // What b has sent itself, so that he may be told of it.
            by_b.send_to(b"a flow", SocketAddr::new(*to, PORT)).unwrap();
            node.wait("what b has sent", |_| !received(&at_a).is_empty());
            let (his, ends) = ([*from, *to].map(|it| SocketAddr::new(it, PORT)), [*to, *from]);
            let word = |it: &str| format!("{it} {}", if to.is_ipv4() { 4 } else { 6 });
            by_a.send_undelivered(gateway, ends, his, word("short").as_bytes());
            let parts = format!("________{}", word("in parts"));
            by_a.send_undelivered_in_parts(gateway, ends, his, parts.as_bytes());
            if to.is_ipv6() {
                by_a.send_undelivered(gateway, ends, his, &long("long 6"));
            }
        }
        sleep(slowed(SILENCE));
        ear.heard(&words)
    };
    let short = || BTreeSet::from(["short 4", "short 6"]);
    assert_eq!(heard(&node), short());
    node.kill();
    assert_eq!(heard(&node), short());
    node.node.sh("nft delete table netdev podwire-sources");
    remove_long_errors(&node);
    assert_eq!(heard(&node), words.into());
    node.start();
    assert_eq!(heard(&node), short());
    node.clean_up();
}
