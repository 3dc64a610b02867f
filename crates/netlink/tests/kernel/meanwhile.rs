//! Lists while others change nf_tables all the time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use netlink::Error;
use netlink::nftables::{Change, Client};
use ruleset::nft::{Chain, Family, Match, Rule, Table, Verdict};

use crate::space::{nf_tables, nft};

const OURS: Table<'_> = Table { family: Family::Inet, name: "ours" };
const THEIRS: Table<'_> = Table { family: Family::Inet, name: "theirs" };
const RULES: usize = 4000;

fn chain(name: &str) -> Chain<'_> {
    Chain { name, base: None, comment: None }
}

fn rules(comment: &str) -> Vec<Rule> {
    let rule = |_| Rule::new([Match::Protocol(6)], Verdict::Return).commented(comment);
    (0..RULES).map(rule).collect()
}

/// Puts these rules into the chain, in place of those that it has.
fn replace(client: &mut Client, rules: &[Rule]) {
    let rules = rules.iter().map(|rule| Change::Rule("c", rule));
    let changes = [Change::Table(None), Change::Chain(&chain("c")), Change::Empty("c")];
    let changes: Vec<_> = changes.into_iter().chain(rules).collect();
    client.change(OURS, &changes).unwrap();
}

/// Does something while somebody changes a table of his own without a pause.
fn disturbed<T>(does: impl FnOnce() -> T) -> T {
    let (is_done, rule) =
        (AtomicBool::new(false), Rule::new([Match::Protocol(6)], Verdict::Return));
    let disturb = || {
        let mut client = Client::open().unwrap().unwrap();
        let chain = chain("c");
        let made = [Change::Table(None), Change::Chain(&chain), Change::Rule("c", &rule)];
        while !is_done.load(Ordering::Relaxed) {
            client.change(THEIRS, &made).unwrap();
            client.change(THEIRS, &[Change::Empty("c")]).unwrap();
        }
    };
    thread::scope(|scope| {
        let disturbing = scope.spawn(disturb);
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(does));
        is_done.store(true, Ordering::Relaxed);
        disturbing.join().unwrap();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
fn what_others_do_to_their_own_tables_keeps_no_list_from_being_whole() {
    let mut client = nf_tables();
    replace(&mut client, &rules("ours"));
    let elements: Vec<String> =
        (0..RULES).map(|it| format!("10.0.{}.{}", it / 250, it % 250)).collect();
    let elements = elements.join(", ");
    let sets: String = (0..1000).map(|it| format!("set s{it} {{ type ipv4_addr; }}\n")).collect();
    nft(&format!(
        "table inet ours {{\n{sets}\nset s {{ type ipv4_addr; elements = {{ {elements} }}; }}
}}"
    ));
    disturbed(|| {
        let generation = client.generation().unwrap();
        for _ in 0..10 {
            assert_eq!(client.rules(OURS, "c").unwrap().len(), RULES);
            assert_eq!(client.all_rules(OURS).unwrap()["c"].len(), RULES);
            assert_eq!(client.elements(OURS, "s").unwrap().len(), RULES);
            assert_eq!(client.sets(OURS).unwrap().len(), 1001);
        }
        let transactions = client.generation().unwrap().unwrap() - generation.unwrap();
        assert!(transactions > 100, "{transactions} transactions disturb nobody");
    });
}

#[test]
fn chains_are_listed_while_others_change_rules() {
    let mut client = nf_tables();
    let names: Vec<String> = (0..RULES).map(|it| format!("c{it}")).collect();
    let chains: Vec<Chain<'_>> = names.iter().map(|it| chain(it)).collect();
    let changes = chains.iter().map(Change::Chain);
    let changes: Vec<_> = [Change::Table(None)].into_iter().chain(changes).collect();
    client.change(OURS, &changes).unwrap();
    let of_others = Table { family: Family::Inet, name: "others" };
    client.change(of_others, &[Change::Table(None), Change::Chain(&chain("c"))]).unwrap();
    let (is_done, rule) =
        (AtomicBool::new(false), Rule::new([Match::Protocol(6)], Verdict::Return));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Client::open().unwrap().unwrap();
            while !is_done.load(Ordering::Relaxed) {
                client.change(of_others, &[Change::Rule("c", &rule)]).unwrap();
                client.change(of_others, &[Change::Empty("c")]).unwrap();
            }
        });
        let listed: Vec<_> = (0..10).map(|_| client.chains(OURS)).collect();
        is_done.store(true, Ordering::Relaxed);
        for chains in listed {
            assert_eq!(chains.unwrap().unwrap().len(), RULES);
        }
    });
}

#[test]
fn a_list_that_a_change_of_its_own_table_interrupts_is_not_taken_for_whole() {
    let mut client = nf_tables();
    let versions = ["one", "other"].map(rules);
    replace(&mut client, &versions[0]);
    let is_done = AtomicBool::new(false);
    disturbed(|| {
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut client = Client::open().unwrap().unwrap();
                for version in versions.iter().cycle().take(20) {
                    replace(&mut client, version);
                    thread::sleep(Duration::from_millis(200));
                }
                is_done.store(true, Ordering::Relaxed);
            });
            while !is_done.load(Ordering::Relaxed) {
                let rules = client.rules(OURS, "c").unwrap();
                assert_eq!(rules.len(), RULES);
                assert!(rules.iter().all(|it| it.comment == rules[0].comment));
            }
        });
    });
}

/// The kernel counts its way through the chains of all tables: where one before goes, the next piece begins too late.
#[test]
fn no_chain_is_missed_while_rules_of_others_go_that_have_chains() {
    let mut client = nf_tables();
    let of_others = 600;
    let rules = "ip saddr 192.0.2.1 jump { accept; }\n".repeat(of_others);
    nft(&format!("table inet theirs {{\nchain c {{\n{rules}}}\n}}"));
    let names: Vec<String> = (0..RULES).map(|it| format!("c{it}")).collect();
    let chains: Vec<Chain<'_>> = names.iter().map(|it| chain(it)).collect();
    let changes = chains.iter().map(Change::Chain);
    let changes: Vec<_> = [Change::Table(None)].into_iter().chain(changes).collect();
    client.change(OURS, &changes).unwrap();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Client::open().unwrap().unwrap();
            for rule in client.rules(THEIRS, "c").unwrap() {
                client.change(THEIRS, &[Change::DeleteRule("c", rule.handle)]).unwrap();
                thread::sleep(Duration::from_millis(2));
            }
            is_done.store(true, Ordering::Relaxed);
        });
        while !is_done.load(Ordering::Relaxed) {
            match client.chains(OURS) {
                // They go all the time.
                Err(Error::Interrupted { .. }) => {}
                listed => assert_eq!(listed.unwrap().unwrap().len(), RULES),
            }
        }
    });
    assert_eq!(client.chains(THEIRS).unwrap().unwrap(), ["c"]);
}
