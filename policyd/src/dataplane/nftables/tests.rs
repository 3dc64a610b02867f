//! What cannot go by nf_tables keeps nothing else from going. Needs root and nft.

use std::collections::BTreeSet;

use netlink::nftables::Client;
use nix::sched::{CloneFlags, unshare};
use ruleset::nft::{Encoded, Family, Table};
use runner::{OsRunner, Program, Runner};
use serde_json::{Value, json};

use crate::dataplane::{Dataplane, Kind, Programs};
use crate::index::Index;
use crate::iptables::{self, Settings};
use crate::model::Namespace;
use crate::source::{Change, Event};
use crate::tests::scene::{compile_pod, compile_policy, namespace, pod, policy};

const TABLE: Table<'_> = Table { family: Family::Inet, name: "podwire" };

fn allows(name: &str, from: &str) -> Value {
    let from = json!([{"podSelector": {"matchLabels": {"pod": from}}}]);
    policy(name, json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [{"from": from}]}))
}

fn elements(client: &mut Client) -> BTreeSet<Encoded> {
    let sets = client.sets(TABLE).unwrap();
    sets.iter().flat_map(|it| client.elements(TABLE, &it.name).unwrap()).collect()
}

#[test]
fn what_keeps_a_chain_from_going_keeps_nobody_among_those_who_are_let_pass() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let mut index = Index::of("node-1", false);
    let x = Namespace::from(&serde_json::from_value(namespace("x")).unwrap());
    index.apply(Event::Namespaces(Change::Applied(x)));
    let pods = [("x/a", "10.0.0.1"), ("x/b", "10.0.0.2"), ("x/c", "10.0.0.3")]
        .map(|(name, address)| compile_pod(&pod(name, &[address])));
    pods.iter().for_each(|it| index.apply(Event::Pods(Change::Applied(it.clone()))));
    let policies = [allows("x/of-b", "b"), allows("x/of-c", "c")].map(|it| compile_policy(&it));
    policies.iter().for_each(|it| index.apply(Event::Policies(Change::Applied(it.clone()))));
    index.take_changes();
    let (programs, settings) = (Programs::new(OsRunner, ""), Settings::default());
    let families = [iptables::Family::V4];
    let mut dataplane = Dataplane::new(Kind::Nftables, programs, &families, settings);
    dataplane.assume_nothing();
    dataplane.adopt(&index.plan()).unwrap();
    let mut client = Client::open().unwrap().unwrap();
    let has = |client: &mut Client, last: u8| {
        elements(client).iter().any(|it| it.key == [10, 0, 0, last])
    };
    // Of pod c there are the set of whom a policy lets pass, and what leads to its rules.
    assert!(has(&mut client, 2) && has(&mut client, 3));

    // Somebody takes away a chain that is about to go.
    let (key, _) = index.chains().find(|(key, _)| key.policy.name == "of-c").unwrap();
    let chain = iptables::policy_chain_name(key);
    let damage = format!("flush table inet podwire; delete chain inet podwire {chain}");
    let nft = Program { file: "nft".into(), args: &[&damage], ..Program::default() };
    assert!(OsRunner.run(&nft).unwrap().status.success());
    index.apply(Event::Policies(Change::Removed(policies[1].clone())));
    index.apply(Event::Pods(Change::Removed(pods[1].clone())));
    dataplane.apply(&index.take_changes()).unwrap_err();
    assert!(!has(&mut client, 2), "it has gone and would be let pass");
}
