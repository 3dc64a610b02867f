//! Whether the interfaces of the ends pass packets from their addresses alone.

use super::report::Live;
use crate::ingress::{self, Comments, Sources, TABLE};

/// Compares what the kernel holds with the chains of these interfaces.
pub(super) fn compare(sources: &Sources, held: Option<&Comments>, live: &mut Live) {
    if sources.is_empty() {
        return;
    }
    let place = format!("nf_tables: table netdev {TABLE}");
    let Some(held) = held else {
        let problem = "it is missing (policyd does without it only where the kernel has no nf_tables for interfaces): packets with others' addresses come as far as the rules ahead of connection tracking";
        return live.differ(&place, problem);
    };
    for (chain, _) in ingress::differing(sources, held) {
        live.differ(&place, format!("chain {chain} is not as policyd writes it"));
    }
}

#[cfg(test)]
mod tests {
    use ruleset::nft::Rule;

    use super::*;

    #[test]
    fn each_interface_has_its_chain() {
        let addresses = ["10.1.0.2".parse().unwrap()].into();
        let sources = Sources::from([("veth1".to_owned(), addresses)]);
        let compare = |held: Option<&Comments>| {
            let mut live = Live::new("n", Vec::new());
            super::compare(&sources, held, &mut live);
            live.differences.into_iter().map(|it| it.problem).collect::<Vec<_>>()
        };
        let all = ingress::differing(&sources, &Comments::new()).into_iter();
        let comments = |rules: Vec<Rule>| rules.into_iter().map(|it| it.comment).collect();
        let whole: Comments = all.map(|(chain, rules)| (chain, comments(rules))).collect();
        assert_eq!(compare(Some(&whole)), [""; 0]);
        let mut emptied = whole.clone();
        emptied.insert("veth1".to_owned(), Vec::new());
        let differs = |chain: &str| format!("chain {chain} is not as policyd writes it");
        assert_eq!(compare(Some(&emptied)), [differs("veth1")]);
        assert_eq!(
            compare(Some(&Comments::new())),
            ["forged/", "fragments/", "fragments6/", "veth1"].map(differs)
        );
        assert_eq!(compare(None).len(), 1);
        assert!(compare(None)[0].starts_with("it is missing ("));
    }
}
