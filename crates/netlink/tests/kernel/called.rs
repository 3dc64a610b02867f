//! Which chains the kernel calls at a hook. Newer kernels tell, others list all.

use netlink::nftables::Called;
use ruleset::nft::Hook;

use crate::space::{nf_tables, nft};

const TABLES: &str = "
table ip a {
  chain forward { type filter hook forward priority 0; policy drop; }
  chain input { type filter hook input priority 0; policy drop; }
  chain nobody { }
  chain changing { type nat hook postrouting priority 100; }
}
table ip6 a {
  chain forward { type filter hook forward priority -10; }
}
table inet b {
  chain one { type filter hook forward priority 5; policy drop; }
  chain other { type filter hook forward priority 6; }
}
table bridge c {
  chain forward { type filter hook forward priority 0; policy drop; }
}
";

fn told(called: &[Called]) -> Vec<String> {
    let line = |it: &Called| {
        let policy = if it.chain.drops_rest() { "drop" } else { "accept" };
        format!("{} {} {policy}", it.table(), it.chain.name)
    };
    let mut lines: Vec<String> = called.iter().map(line).collect();
    lines.sort();
    lines
}

#[test]
fn chains_that_are_called_are_told_with_what_they_do_at_last() {
    let mut client = nf_tables();
    nft(TABLES);
    let mut at = |hook| told(&client.filters(hook).unwrap());
    let forward =
        ["inet b one drop", "inet b other accept", "ip a forward drop", "ip6 a forward accept"];
    assert_eq!(at(Hook::Forward), forward);
    assert_eq!(at(Hook::Input), ["ip a input drop"]);
    // What changes addresses lets nothing pass.
    assert_eq!(at(Hook::Postrouting), [""; 0]);
    let filters = client.filters(Hook::Forward).unwrap();
    assert!(!filters.iter().any(|it| client.is_owned(it.table()).unwrap()));
}
