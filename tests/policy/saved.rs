//! What the kernel holds, as text that is the same for the same state.

use std::collections::BTreeMap;

use lab::{Space, by_nftables, has_iptables, nft_parts};
use regex::Regex;

/// Rules of both families and sets. Counters, sizes and the order of chains and members mean
/// nothing; a table or a kernel's chain that is empty comes and goes with those who look.
pub(crate) fn all(space: &Space) -> String {
    if !has_iptables() {
        return nftables(space).join("\n");
    }
    let mut lines = Vec::new();
    for program in ["iptables-save", "ip6tables-save"] {
        // It warns of legacy tables by words on its error output, and shows its own only.
        lines.extend(rules(program, &space.sh(program)));
    }
    // To ask for the older tables makes them.
    let legacy = space.sh("cat /proc/thread-self/net/ip_tables_names 2>/dev/null || :");
    if !legacy.is_empty() {
        for program in ["iptables-legacy-save", "ip6tables-legacy-save"] {
            lines.extend(rules(program, &space.sh(program)));
        }
    }
    lines.extend(sets(&space.sh("ipset save")));
    lines.extend(nftables(space));
    lines.join("\n")
}

/// Those of policyd's other backend, each line with its place.
fn nftables(space: &Space) -> Vec<String> {
    let placed = |(place, lines): (String, Vec<String>)| {
        lines.into_iter().map(move |line| format!("nft {place}: {line}"))
    };
    nft_parts(space).into_iter().flat_map(placed).collect()
}

fn rules(program: &str, text: &str) -> Vec<String> {
    let mut chains = BTreeMap::<(String, String), Vec<String>>::new();
    let mut table = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name.to_owned();
        } else if let Some(chain) = line.strip_prefix(':') {
            let (name, policy) = chain.split_once(' ').unwrap();
            let held = chains.entry((table.clone(), name.to_owned())).or_default();
            if !policy.starts_with("ACCEPT") {
                let policy = policy.split(' ').next().unwrap();
                held.push(format!(":{name} {policy}"));
            }
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let name = rule.split(' ').next().unwrap().to_owned();
            chains.entry((table.clone(), name)).or_default().push(line.to_owned());
        }
    }
    chains
        .into_iter()
        .flat_map(|((table, _), rules)| {
            rules.into_iter().map(move |rule| format!("{program} {table} {rule}"))
        })
        .collect()
}

fn sets(text: &str) -> Vec<String> {
    let chance = Regex::new(" (hashsize|initval|bucketsize) [0-9a-fx]+").unwrap();
    let mut lines: Vec<_> =
        text.lines().map(|line| format!("ipset {}", chance.replace_all(line, ""))).collect();
    // By set, each `create` ahead of its members.
    lines.sort_by_key(|line| {
        let words: Vec<_> = line.split(' ').collect();
        (words[2].to_owned(), words[1] != "create", line.clone())
    });
    lines
}

/// How many packets the rules of a chain have seen, in both families together.
pub(crate) fn packets(space: &Space, chain: &str) -> u64 {
    if by_nftables() {
        // Of some there is one for each family.
        let chain = Regex::new(&format!(r"(?s)chain {chain}(-[46])? \{{.*?\}}")).unwrap();
        let table =
            space.sh("nft list table inet podwire; nft list table bridge podwire-ports || true");
        let text: String = chain.find_iter(&table).map(|it| it.as_str()).collect();
        let counted = Regex::new(r"counter packets (\d+)").unwrap();
        return counted.captures_iter(&text).map(|it| it[1].parse::<u64>().unwrap()).sum();
    }
    let text = space.sh("iptables-save -c; ip6tables-save -c");
    let marked = format!("] -A {chain} ");
    let rules = text.lines().filter(|line| line.contains(&marked));
    rules.map(|line| line[1..].split(':').next().unwrap().parse::<u64>().unwrap()).sum()
}
