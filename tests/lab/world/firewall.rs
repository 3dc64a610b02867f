//! Rules of iptables and nftables.

use std::collections::BTreeMap;

use serde_json::Value;

/// Tables that belong to iptables-nft; iptables-save shows them better.
const OF_IPTABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];

/// The facts of `iptables-save`, `ip6tables-save` and `nft -j list ruleset`, or of nothing at all.
pub(crate) fn facts(place: &str, text: &str) -> Vec<String> {
    let parts: Vec<&str> = text.split("===\n").collect();
    let [four, six, nft] = parts[..] else { return Vec::new() };
    let mut facts = saved(place, "iptables4", four);
    facts.extend(saved(place, "iptables6", six));
    facts.extend(ruleset(place, nft));
    facts
}

/// `iptables-save` as facts. Rules are numbered within their chain, because their order matters.
/// Built-in chains that accept are no facts: they come and go with the tools that look at them.
fn saved(place: &str, kind: &str, text: &str) -> Vec<String> {
    let mut table = "";
    let mut next: BTreeMap<String, usize> = BTreeMap::new();
    let mut facts = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(chain) = line.strip_prefix(':') {
            let words: Vec<&str> = chain.split(' ').collect();
            if words[1] != "ACCEPT" {
                facts.push(format!("{place} {kind} {table} {} policy={}", words[0], words[1]));
            }
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let (chain, rule) = rule.split_once(' ').unwrap_or((rule, ""));
            let number = next.entry(format!("{table} {chain}")).or_default();
            *number += 1;
            facts.push(format!("{place} {kind} {table} {chain} #{number} {rule}"));
        }
    }
    facts
}

fn ruleset(place: &str, text: &str) -> Vec<String> {
    let document: Value = serde_json::from_str(text).expect("nft prints JSON");
    let objects = document["nftables"].as_array().cloned().unwrap_or_default();
    let mut facts = Vec::new();
    for (position, object) in objects.iter().enumerate() {
        for (kind, body) in object.as_object().into_iter().flatten() {
            if kind == "metainfo" || is_of_iptables(kind, body) {
                continue;
            }
            let mut body = body.clone();
            forget_chance(&mut body);
            // Only rules have an order that matters; the listing keeps it.
            let order = if kind == "rule" { format!("#{position} ") } else { String::new() };
            facts.push(format!("{place} nft {kind} {order}{body}"));
        }
    }
    facts
}

fn is_of_iptables(kind: &str, body: &Value) -> bool {
    let table = if kind == "table" { &body["name"] } else { &body["table"] };
    let family = body["family"].as_str().unwrap_or_default();
    ["ip", "ip6"].contains(&family)
        && table.as_str().is_some_and(|name| OF_IPTABLES.contains(&name))
}

/// Removes handles and counters, wherever they are.
fn forget_chance(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for key in ["handle", "packets", "bytes"] {
                map.remove(key);
            }
            map.values_mut().for_each(forget_chance);
        }
        Value::Array(list) => list.iter_mut().for_each(forget_chance),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_keep_their_order_and_lose_their_counters() {
        let text = "# a comment\n*nat\n:POSTROUTING ACCEPT [3:180]\n:CNI-1 - [0:0]\n\
                    -A POSTROUTING -s 10.0.0.2/32 -j CNI-1\n-A CNI-1 -j ACCEPT\n-A CNI-1 -j MASQUERADE\nCOMMIT\n";
        assert_eq!(
            saved("node", "iptables4", text),
            [
                "node iptables4 nat CNI-1 policy=-",
                "node iptables4 nat POSTROUTING #1 -s 10.0.0.2/32 -j CNI-1",
                "node iptables4 nat CNI-1 #1 -j ACCEPT",
                "node iptables4 nat CNI-1 #2 -j MASQUERADE",
            ]
        );
    }

    #[test]
    fn tables_of_iptables_are_not_told_twice() {
        let text = r#"{"nftables":[{"metainfo":{}},{"table":{"family":"ip","name":"nat","handle":1}},
            {"table":{"family":"inet","name":"mine","handle":7}}]}"#;
        assert_eq!(ruleset("node", text), [r#"node nft table {"family":"inet","name":"mine"}"#]);
    }
}
