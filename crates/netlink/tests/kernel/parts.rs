//! Chains and sets that are part of a rule, in braces.

use netlink::nftables::Change;
use ruleset::nft::{Family, Table};

use crate::space::{nf_tables, nft};

#[test]
fn what_is_part_of_a_rule_is_not_listed_by_itself() {
    let mut client = nf_tables();
    let table = Table { family: Family::Inet, name: "t" };
    let part = "ip daddr { 192.0.2.2, 192.0.2.3 } accept";
    let rule = format!("ip saddr 192.0.2.1 jump {{\n{part}\n}}\n");
    let set = "set s {\ntype ipv4_addr\n}\n";
    nft(&format!("table inet t {{\n{set}chain of-others {{\n{rule}}}\n}}\n"));
    assert_eq!(client.chains(table).unwrap().unwrap(), ["of-others"]);
    let sets: Vec<_> = client.sets(table).unwrap().into_iter().map(|it| it.name).collect();
    assert_eq!(sets, ["s"]);
    // What is listed can go as one likes, and what is part of it goes with it.
    client.change(table, &[Change::Empty("of-others"), Change::DeleteChain("of-others")]).unwrap();
    client.change(table, &[Change::DeleteSet("s"), Change::DeleteTable]).unwrap();
}
