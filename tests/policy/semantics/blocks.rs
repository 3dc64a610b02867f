//! A.2 and A.5: blocks of addresses.

use serde_json::{Value, json};

use super::{from_x, row, to_x};
use crate::table::Row;

fn block(cidr: &str, except: &[&str]) -> Value {
    json!({"ipBlock": {"cidr": cidr, "except": except}})
}

pub(super) fn rows() -> Vec<Row> {
    let from = |peers: Value| to_x(json!([{"from": peers}]));
    let to = |peers: Value| from_x(json!([{"to": peers}]));
    vec![
        row("cidr", from(json!([block("203.0.113.0/24", &[]), block("2001:db8:9::/48", &[])]))),
        row("cidr of one address", to(json!([block("203.0.113.9/32", &[])]))),
        row(
            "cidr of pods' addresses",
            from(json!([block("10.1.0.0/24", &[]), block("10.2.0.0/24", &[])])),
        ),
        row(
            "cidr that is not canonical",
            to(json!([block("10.1.0.9/24", &[]), block("fd00:1::77/64", &[])])),
        ),
        row("IPv4 alone isolates IPv6 altogether", from(json!([block("0.0.0.0/0", &[])]))),
        row("0.0.0.0/0 is no IPv6", to(json!([block("0.0.0.0/0", &[])]))),
        row("::/0 is all of IPv6, NAT64 included", to(json!([block("::/0", &[])]))),
        row("::/0 to ingress", from(json!([block("::/0", &[])]))),
        row("64:ff9b::/96", to(json!([block("64:ff9b::/96", &[])]))),
        row(
            "except",
            to(json!([
                block("10.0.0.0/8", &["10.1.0.0/29", "10.2.0.10/32"]),
                block("fd00::/8", &["fd00:1::/125", "fd00:2::10/128"])
            ])),
        ),
        row(
            "except of everything but",
            from(json!([block("0.0.0.0/0", &["10.1.0.0/24"]), block("::/0", &["8000::/1"])])),
        ),
        row(
            "except that leaves nothing",
            from(json!([block("10.1.0.0/24", &["10.1.0.0/25", "10.1.0.128/25"])])),
        ),
        row(
            "A.5.2 except of one peer does not touch another's block",
            to(json!([
                block("10.0.0.0/8", &["10.1.0.0/24"]),
                block("10.1.0.4/30", &[]),
                block("fd00::/8", &["fd00:1::/64"]),
                block("fd00:1::4/126", &[])
            ])),
        ),
        row(
            "A.5.3 blocks that overlap",
            from(json!([
                block("10.1.0.0/24", &[]),
                block("10.1.0.0/25", &["10.1.0.4/30"]),
                block("10.0.0.0/8", &["10.1.0.0/16"]),
                block("fd00:1::/64", &[]),
                block("fd00:1::/120", &[])
            ])),
        ),
        row(
            "A.5.4 everything as one of several",
            to(json!([
                block("::/0", &[]),
                block("fd00:1::/64", &[]),
                block("0.0.0.0/0", &["203.0.113.0/24"]),
                block("203.0.113.9/32", &[])
            ])),
        ),
        row(
            "a block beside pods",
            to(
                json!([block("203.0.113.0/24", &[]), {"podSelector": {"matchLabels": {"pod": "b"}}}]),
            ),
        ),
        row("a block that is wrong allows nothing", from(json!([block("10.1.0.0/240", &[])]))),
        row(
            "the node's own addresses",
            to(json!([block("192.0.2.1/32", &[]), block("fd00:1::1/128", &[])])),
        ),
    ]
}
