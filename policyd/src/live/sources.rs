//! Whether the interfaces of the ends pass packets from their addresses alone.

use std::collections::BTreeSet;

use super::report::Live;
use crate::ingress::{self, Held, Sources, TABLE};

/// Compares what the kernel holds with the chains of these interfaces, of those that there are: before Linux 6.16 a
/// chain goes with its interface (`nf_tables_netdev_event`), and nobody can make one for an interface to come.
pub(super) fn compare(
    mut sources: Sources,
    links: &BTreeSet<String>,
    held: Option<&Held>,
    live: &mut Live,
) {
    sources.retain(|name, _| {
        let is_there = links.contains(name);
        if !is_there {
            live.notes.push(format!("interface {name} is not there any more: nothing comes by it, and what table netdev {TABLE} holds for it was not compared"));
        }
        is_there
    });
    if sources.is_empty() {
        return;
    }
    let place = format!("nf_tables: table netdev {TABLE}");
    let Some(held) = held else {
        let problem = "it is missing (policyd does without it only where the kernel has no nf_tables for interfaces): packets with others' addresses come as far as the rules ahead of connection tracking";
        return live.differ(&place, problem);
    };
    if !held.is_awake {
        live.differ(&place, "it is dormant: none of its rules is in force");
    }
    for (chain, _) in ingress::differing(&sources, &held.comments) {
        live.differ(&place, format!("chain {chain} is not as policyd writes it"));
    }
}

#[cfg(test)]
mod tests {
    use ruleset::nft::Rule;

    use super::*;
    use crate::ingress::Comments;

    fn sources(interfaces: &[&str]) -> Sources {
        let addresses = BTreeSet::from(["10.1.0.2".parse().unwrap()]);
        interfaces.iter().map(|it| ((*it).to_owned(), addresses.clone())).collect()
    }

    fn compared(sources: Sources, links: &[&str], held: Option<&Held>) -> Live {
        let mut live = Live::new("n", Vec::new());
        let links = links.iter().map(|it| (*it).to_owned()).collect();
        compare(sources, &links, held, &mut live);
        live
    }

    #[test]
    fn an_interface_that_has_gone_needs_none() {
        let live = compared(sources(&["veth1"]), &["lo"], None);
        assert_eq!((live.differences.len(), live.notes.len()), (0, 1));
        let live = compared(sources(&["veth1", "veth2"]), &["veth2"], None);
        assert_eq!((live.differences.len(), live.notes.len()), (1, 1));
        assert!(live.notes[0].starts_with("interface veth1 is not there any more"));
    }

    #[test]
    fn each_interface_has_its_chain() {
        let sources = sources(&["veth1"]);
        let found = |held: Option<&Held>| {
            let live = compared(sources.clone(), &["lo", "veth1"], held);
            assert_eq!(live.notes, [""; 0]);
            live.differences.into_iter().map(|it| it.problem).collect::<Vec<_>>()
        };
        let all = ingress::differing(&sources, &Comments::new()).into_iter();
        let comments = |rules: Vec<Rule>| rules.into_iter().map(|it| it.comment).collect();
        let whole: Comments = all.map(|(chain, rules)| (chain, comments(rules))).collect();
        let compare =
            |comments: &Comments| found(Some(&Held { is_awake: true, comments: comments.clone() }));
        assert_eq!(compare(&whole), [""; 0]);
        let dormant = Held { is_awake: false, comments: whole.clone() };
        assert_eq!(found(Some(&dormant)), ["it is dormant: none of its rules is in force"]);
        let mut emptied = whole.clone();
        emptied.insert("veth1".to_owned(), Vec::new());
        let differs = |chain: &str| format!("chain {chain} is not as policyd writes it");
        assert_eq!(compare(&emptied), [differs("veth1")]);
        assert_eq!(
            compare(&Comments::new()),
            ["forged/", "fragments/", "fragments6/", "veth1"].map(differs)
        );
        assert_eq!(found(None).len(), 1);
        assert!(found(None)[0].starts_with("it is missing ("));
    }
}
