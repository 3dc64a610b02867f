//! Entries of `from` and `to`.

use super::{Finding, Subject, WrittenRule};
use crate::model::{Peer, Peers, Rule, Selector};
use crate::words;

pub(super) fn check(subject: &Subject<'_>, rule: &WrittenRule<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if rule.peers.is_some_and(<[_]>::is_empty) {
        let text = "allows everybody, as if it were absent (for nobody, leave out the rule)";
        findings.push(subject.warning(&rule.peers_path(), text.to_owned()));
    }
    let Rule::Allow { peers: Peers::AnyOf(understood), .. } = rule.rule else { return findings };
    // `{}` is written where the selector is absent in the value, so that the written form tells.
    let written = rule.peers.unwrap_or_default().iter().zip(understood).enumerate();
    let entries: Vec<_> = written
        .map(|(index, (written, peer))| (index, half(written.pod_selector.is_some(), peer)))
        .collect();
    for pair in entries.windows(2) {
        let [(index, Some(one)), (_, Some(two))] = pair else { continue };
        let (namespaces, pods) = match (one, two) {
            (Half::Namespaces(namespaces), Half::Pods(pods))
            | (Half::Pods(pods), Half::Namespaces(namespaces)) => (namespaces, pods),
            _ => continue,
        };
        let path = format!("{}[{index}]", rule.peers_path());
        findings.push(subject.warning(&path, confusion(subject, namespaces, pods)));
    }
    findings
}

/// A peer of one selector.
enum Half<'a> {
    Namespaces(&'a Selector),
    Pods(&'a Selector),
}

fn half(names_pods: bool, peer: &Peer) -> Option<Half<'_>> {
    match peer {
        Peer::Pods { namespaces: Some(namespaces), .. } if !names_pods => {
            Some(Half::Namespaces(namespaces))
        }
        // Without requirements it would change nothing in the other entry.
        Peer::Pods { namespaces: None, pods } if *pods != Selector::default() => {
            Some(Half::Pods(pods))
        }
        _ => None,
    }
}

fn confusion(subject: &Subject<'_>, namespaces: &Selector, pods: &Selector) -> String {
    let (namespaces, pods) = (words::selector(namespaces), words::selector(pods));
    let own = &subject.policy.name.namespace;
    format!(
        "this entry and the next are two peers: all pods of the namespaces {namespaces}, and the pods {pods} of namespace {own} (for the pods {pods} of the namespaces {namespaces}, make it one entry with both selectors)"
    )
}
