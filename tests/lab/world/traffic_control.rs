//! Queueing disciplines and filters, as the program tc shows them.

use super::Space;
use super::links::Links;

/// What [`facts`] are made of. Most namespaces have nothing of that, and no program is started for them.
pub(super) fn look(space: &Space, links: &Links) -> String {
    let mut script = String::new();
    for name in links.limited() {
        for what in ["qdisc show", "class show", "filter show"] {
            script += &format!("tc {what} dev {name} | sed 's/^[a-z]/filters of {name}: &/'\n");
        }
        script +=
            &format!("tc filter show dev {name} ingress | sed 's/^[a-z]/received by {name}: &/'\n");
    }
    if script.is_empty() { script } else { space.sh(&script) }
}

/// A fact for each discipline, class and filter.
pub(super) fn facts(place: &str, text: &str) -> Vec<String> {
    let mut facts: Vec<String> = Vec::new();
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        match (line.starts_with(char::is_whitespace), words.first(), facts.last_mut()) {
            // A filter's actions are numbered as they come, all over the kernel.
            (_, Some(&"index") | None, _) => {}
            (true, _, Some(fact)) => *fact += &format!(" {}", words.join(" ")),
            _ => facts.push(format!("{place} traffic {}", words.join(" "))),
        }
    }
    let is_own = |fact: &String| fact.contains("qdisc noqueue");
    facts.retain(|it| !is_own(it));
    facts
}
