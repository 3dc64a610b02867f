//! Whether the interfaces of the ends pass packets from their addresses alone.

use super::report::Live;
use crate::ingress::{self, Held, Sources, TABLE};

/// Compares what the kernel holds with the chains of these interfaces.
pub(super) fn compare(sources: &Sources, held: &Held, live: &mut Live) {
    if sources.is_empty() {
        return;
    }
    let place = format!("nf_tables: table netdev {TABLE}");
    let Some(held) = held else {
        let problem = "it is missing (policyd does without it only where the kernel has no nf_tables for interfaces): packets with others' addresses come as far as table raw";
        return live.differ(&place, problem);
    };
    for chain in ingress::differing(sources, held) {
        live.differ(&place, format!("chain {chain} is not as policyd writes it"));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn each_interface_has_its_chain() {
        let addresses = ["10.1.0.2".parse().unwrap()].into();
        let sources = Sources::from([("veth1".to_owned(), addresses)]);
        let compare = |held: Held| {
            let mut live = Live::new("n", Vec::new());
            super::compare(&sources, &held, &mut live);
            live.differences.into_iter().map(|it| it.problem).collect::<Vec<_>>()
        };
        let whole = ingress::written(&sources);
        assert_eq!(compare(Some(whole.clone())), [""; 0]);
        let mut emptied = whole.clone();
        emptied.insert("veth1".to_owned(), Vec::new());
        let differs = |chain: &str| format!("chain {chain} is not as policyd writes it");
        assert_eq!(compare(Some(emptied)), [differs("veth1")]);
        assert_eq!(
            compare(Some(BTreeMap::new())),
            ["forged/", "fragments/", "fragments6/", "veth1"].map(differs)
        );
        assert_eq!(compare(None).len(), 1);
        assert!(compare(None)[0].starts_with("it is missing ("));
    }
}
