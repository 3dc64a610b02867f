//! The role of the manifest grants what policyd needs to read, and no more.

use std::fs;

use lab::Node;
use lab::cluster::Cluster;
use serde_json::{Value, json};

use crate::accounts::{add_account, allow, kubeconfig, start_as};
use crate::deployed::{PATIENCE, POLICYD, collection, deployed, documents, texts};
use crate::events::{EVENTS, MAY};
use crate::objects::pod;
use crate::source::got;

/// What it grants besides lists and watches.
const GET: (&str, &str) = ("pods", "get");

/// The role of the manifest, as the API server reads it.
fn reading_role(cluster: &Cluster<'_>) -> Value {
    let document =
        documents(POLICYD).into_iter().find(|it| it.contains("kind: ClusterRole\n")).unwrap();
    cluster.create_yaml(
        &format!("{}?dryRun=All", collection(&document)),
        &document.replace("name: policyd", "name: other"),
    )
}

/// The resources and verbs that a role grants, but for those of Events.
fn granted(role: &Value) -> Vec<(&str, &str)> {
    let mut pairs = Vec::new();
    for rule in role["rules"].as_array().unwrap().iter().filter(|it| it["verbs"] != json!(MAY)) {
        for resource in texts(&rule["resources"]) {
            pairs.extend(texts(&rule["verbs"]).into_iter().map(|verb| (resource, verb)));
        }
    }
    pairs
}

/// The rules of a role but for this verb with this resource.
fn without(role: &Value, resource: &str, verb: &str) -> Vec<Value> {
    let mut rules = role["rules"].as_array().unwrap().clone();
    let owners = rules.iter_mut().filter(|it| texts(&it["resources"]).contains(&resource));
    let mut lacking = Vec::new();
    for rule in owners {
        let mut without = rule.clone();
        without["resources"] = json!([resource]);
        without["verbs"].as_array_mut().unwrap().retain(|it| it != verb);
        rule["resources"].as_array_mut().unwrap().retain(|it| it != resource);
        lacking.push(without);
    }
    assert_eq!(lacking.len(), 1, "{resource}");
    rules.retain(|it| it["resources"] != json!([]));
    rules.extend(lacking);
    rules
}

/// Of an account without the verb, the API server's refusal is what policyd tells.
#[test]
fn no_verb_of_the_reading_role_is_too_much() {
    let node = Node::quick();
    let (cluster, ..) = deployed(&node, POLICYD);
    let role = reading_role(&cluster);
    // Which of these are needed the tests of the events tell.
    let of_events = role["rules"].as_array().unwrap().iter().find(|it| it["verbs"] == json!(MAY));
    let of_events = of_events.expect("a rule for events");
    assert_eq!(
        format!(
            "{}/{}",
            of_events["apiGroups"][0].as_str().unwrap(),
            of_events["resources"][0].as_str().unwrap()
        ),
        EVENTS[0]
    );
    let needed = ["pods", "namespaces", "nodes", "networkpolicies"];
    let cases = needed.iter().flat_map(|resource| ["list", "watch"].map(|verb| (*resource, verb)));
    let cases: Vec<_> = cases.collect();
    let others: Vec<_> = granted(&role).into_iter().filter(|it| !cases.contains(it)).collect();
    assert_eq!(others, [GET]);
    let mut running = Vec::new();
    for (number, (resource, verb)) in cases.into_iter().enumerate() {
        let name = format!("lacks-{number}");
        add_account(&node, &cluster, &name);
        allow(&cluster, &name, &without(&role, resource, verb));
        running.push((resource, verb, start_as(&node, &cluster, number, &name)));
    }
    for (resource, verb, (mut daemon, log)) in running {
        let refusal = format!("cannot {verb} resource \\\"{resource}\\\"");
        let plain = format!("cannot {verb} resource \"{resource}\"");
        daemon.wait_until(PATIENCE, || {
            let said = fs::read_to_string(&log).unwrap();
            said.contains(&refusal) || said.contains(&plain)
        });
    }
}

/// Who is asked for ahead of the watch is got by his name; who is refused waits for the watch, which tells of
/// him too.
#[test]
fn what_the_role_grants_for_a_single_pod_is_enough_and_not_too_much() {
    let node = Node::quick();
    let (cluster, ..) = deployed(&node, POLICYD);
    cluster.apply(&pod("web"));
    let role = reading_role(&cluster);
    let (resource, verb) = GET;
    for (name, rules) in [
        ("has-all", role["rules"].as_array().unwrap().clone()),
        ("lacks-get", without(&role, resource, verb)),
    ] {
        add_account(&node, &cluster, name);
        allow(&cluster, name, &rules);
        let got = got(&node, &kubeconfig(&node, &cluster, name), "web");
        if name == "has-all" {
            assert_eq!(got.unwrap().unwrap().name.name, "web");
        } else {
            let refusal = got.unwrap_err();
            assert!(refusal.contains("cannot get resource \"pods\""), "{refusal}");
        }
    }
}
