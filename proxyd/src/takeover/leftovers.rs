//! What of the output of `iptables-save` is kube-proxy's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The tables in which kube-proxy has chains.
const TABLES: [&str; 3] = ["nat", "filter", "mangle"];
/// kube-proxy's chains by their names, also those of its older versions and of its mode ipvs (`pkg/proxy/iptables` and
/// `pkg/proxy/ipvs`). Not `KUBE-KUBELET-CANARY`, `KUBE-IPTABLES-HINT`, `KUBE-MARK-DROP` and `KUBE-FIREWALL`, which are
/// kubelet's, nor those that kube-router calls `KUBE-` something.
const NAMES: [&str; 15] = [
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-NODE-PORT",
    "KUBE-POSTROUTING",
    "KUBE-MARK-MASQ",
    "KUBE-FORWARD",
    "KUBE-PROXY-FIREWALL",
    "KUBE-PROXY-CANARY",
    "KUBE-LOAD-BALANCER",
    "KUBE-SOURCE-RANGES-FIREWALL",
    "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
    "KUBE-PORTALS-CONTAINER",
    "KUBE-PORTALS-HOST",
];
/// What begins those of single services and endpoints.
const PREFIXES: [&str; 6] =
    ["KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-EXT-", "KUBE-FW-", "KUBE-XLB-"];

/// What of one table is kube-proxy's.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Leftovers<'a> {
    pub(super) table: &'a str,
    /// Chains that go.
    pub(super) chains: BTreeSet<&'a str>,
    /// Rules of the kernel's own chains that lead there, as they were printed after `-A`.
    pub(super) jumps: Vec<&'a str>,
    /// Chains that stay, with the chain of others that leads there.
    pub(super) kept: Vec<(&'a str, &'a str)>,
}

/// A table as it was printed.
#[derive(Debug, Default)]
struct Saved<'a> {
    /// Chains that somebody has made; the kernel's own have a policy.
    made: BTreeSet<&'a str>,
    /// Of each rule its chain, where it leads, and all of it.
    rules: Vec<(&'a str, Option<&'a str>, &'a str)>,
}

/// Of each table that has some.
pub(super) fn leftovers(text: &str) -> Vec<Leftovers<'_>> {
    let mut tables: BTreeMap<&str, Saved<'_>> = BTreeMap::new();
    let mut table = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(rest) = line.strip_prefix(':') {
            let mut words = rest.split(' ');
            if let (Some(chain), Some("-")) = (words.next(), words.next()) {
                tables.entry(table).or_default().made.insert(chain);
            }
        } else if let Some(rule) = line.strip_prefix("-A ") {
            let chain = rule.split(' ').next().unwrap_or_default();
            tables.entry(table).or_default().rules.push((chain, target(rule), rule));
        }
    }
    let of_kube_proxy = tables.into_iter().filter(|(table, _)| TABLES.contains(table));
    let all = of_kube_proxy.map(|(table, saved)| saved.leftovers(table));
    all.filter(|it| !it.chains.is_empty() || !it.kept.is_empty()).collect()
}

impl<'a> Saved<'a> {
    fn leftovers(&self, table: &'a str) -> Leftovers<'a> {
        let mut chains: BTreeSet<_> = self.made.iter().copied().filter(|it| is_own(it)).collect();
        let mut kept = Vec::new();
        // What others rely on stays, with all that it leads to.
        while let Some((chain, by)) = self.needed(&chains) {
            chains.remove(chain);
            kept.push((chain, by));
        }
        let leads = |(chain, target, _): &&(&str, Option<&str>, &str)| {
            !chains.contains(chain) && target.is_some_and(|it| chains.contains(it))
        };
        let jumps = self.rules.iter().filter(leads).map(|(_, _, rule)| *rule).collect();
        Leftovers { table, chains, jumps, kept }
    }

    /// A chain among those that go which one that stays leads to.
    fn needed(&self, going: &BTreeSet<&'a str>) -> Option<(&'a str, &'a str)> {
        self.rules.iter().find_map(|(chain, target, _)| {
            let target = target.filter(|it| going.contains(it))?;
            let stays = self.made.contains(chain) && !going.contains(chain);
            stays.then_some((target, *chain))
        })
    }
}

fn is_own(chain: &str) -> bool {
    NAMES.contains(&chain) || PREFIXES.iter().any(|it| chain.starts_with(it))
}

/// The chain that a rule leads to, if that is what it does: `-j` and `-g` in quotes are others' words.
fn target(rule: &str) -> Option<&str> {
    let mut leads = false;
    let (mut start, mut is_quoted, mut is_escaped) = (0, false, false);
    for (end, letter) in rule.char_indices().chain([(rule.len(), ' ')]) {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ' ' if !is_quoted => {
                let word = rule.get(start..end)?;
                if leads {
                    return Some(word);
                }
                leads = matches!(word, "-j" | "-g");
                start = end + 1;
            }
            _ => {}
        }
    }
    None
}

/// What `iptables-restore --noflush` is to be told: chains that are declared are emptied first.
pub(super) fn input(table: &str, chains: &BTreeSet<&str>, jumps: &[&str]) -> String {
    let mut input = format!("*{table}\n");
    // Writing to a text does not fail.
    for chain in chains {
        _ = writeln!(input, ":{chain} - [0:0]");
    }
    for jump in jumps {
        _ = writeln!(input, "-D {jump}");
    }
    for chain in chains {
        _ = writeln!(input, "-X {chain}");
    }
    input + "COMMIT\n"
}

/// What the program says of a table that it cannot show, as others made it by nf_tables.
pub(super) fn unshown(text: &str) -> Option<&str> {
    let is_of_ours = |line: &str| TABLES.iter().any(|it| line.contains(&format!("`{it}'")));
    let mut lines = text.lines().filter(|it| it.starts_with('#') && it.contains("incompatible"));
    lines.find(|it| is_of_ours(it)).map(|it| it.trim_start_matches(['#', ' ']))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = r#"# Generated by iptables-save v1.8.9 (nf_tables)
*nat
:PREROUTING ACCEPT [1:2]
:POSTROUTING ACCEPT [0:0]
:OTHER - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-MARK-DROP - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-TCOU7JCQXEZGVUNU - [0:0]
-A PREROUTING -m comment --comment "say \" -j KUBE-SERVICES" -j OTHER
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -d 192.0.2.1/32 -g KUBE-SERVICES
-A POSTROUTING -j MASQUERADE
-A OTHER -j ACCEPT
-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m comment --comment "kube-system/kube-dns:dns cluster IP" -j KUBE-SVC-TCOU7JCQXEZGVUNU
-A KUBE-SVC-TCOU7JCQXEZGVUNU ! -s 10.244.0.0/16 -j KUBE-MARK-MASQ
COMMIT
*raw
:KUBE-SERVICES - [0:0]
COMMIT
*filter
:INPUT ACCEPT [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-ROUTER-INPUT - [0:0]
-A INPUT -j KUBE-FIREWALL
-A INPUT -j KUBE-ROUTER-INPUT
COMMIT
*mangle
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-PROXY-CANARY - [0:0]
COMMIT
"#;

    #[test]
    fn kube_proxys_chains_go_with_the_jumps_to_them_and_no_others() {
        let found = leftovers(SAVED);
        let nat = Leftovers {
            table: "nat",
            chains: ["KUBE-MARK-MASQ", "KUBE-SERVICES", "KUBE-SVC-TCOU7JCQXEZGVUNU"].into(),
            jumps: vec![
                "PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES",
                "PREROUTING -d 192.0.2.1/32 -g KUBE-SERVICES",
            ],
            kept: vec![],
        };
        let mangle = Leftovers {
            table: "mangle",
            chains: ["KUBE-PROXY-CANARY"].into(),
            jumps: vec![],
            kept: vec![],
        };
        assert_eq!(found, [mangle, nat]);
    }

    #[test]
    fn what_others_lead_to_stays_with_all_that_it_needs() {
        let text = SAVED
            .replace("-A OTHER -j ACCEPT", "-A OTHER -j KUBE-SVC-TCOU7JCQXEZGVUNU")
            .replace("*mangle\n", "*mangle\n-A PREROUTING -j KUBE-PROXY-CANARY\n");
        let found = leftovers(&text);
        let nat = found.last().unwrap();
        assert_eq!(nat.chains, ["KUBE-SERVICES"].into());
        assert_eq!(nat.jumps.len(), 2);
        assert_eq!(
            nat.kept,
            [
                ("KUBE-SVC-TCOU7JCQXEZGVUNU", "OTHER"),
                ("KUBE-MARK-MASQ", "KUBE-SVC-TCOU7JCQXEZGVUNU")
            ]
        );
        assert_eq!(found[0].jumps, ["PREROUTING -j KUBE-PROXY-CANARY"]);
    }

    #[test]
    fn all_of_a_table_goes_at_once() {
        let text = input("nat", &["A", "B"].into(), &["OUTPUT -j A"]);
        assert_eq!(text, "*nat\n:A - [0:0]\n:B - [0:0]\n-D OUTPUT -j A\n-X A\n-X B\nCOMMIT\n");
    }

    #[test]
    fn a_table_that_cannot_be_shown_is_told() {
        let line =
            |table| format!("*nat\nCOMMIT\n# Table `{table}' is incompatible, use 'nft' tool.\n");
        let told = "Table `mangle' is incompatible, use 'nft' tool.";
        assert_eq!(unshown(&line("mangle")), Some(told));
        assert_eq!(unshown(&line("security")), None);
        assert_eq!(unshown(SAVED), None);
    }
}
