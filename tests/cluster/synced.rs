//! policyd writes nothing before it knows all: half of the objects would open what the rest closes.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use lab::cluster::Version;
use lab::probe::{must_not_reach, must_reach};
use lab::{Node, policy_rules};
use serde_json::{Value, json};

use crate::accounts::{add_account, allow, port, start_as};
use crate::deployed::{PATIENCE, answer, clean_up, is_ready, ours, wire};
use crate::objects::{READ, cluster, policy};

/// Whatever policyd would write it writes within this time.
const SILENCE: Duration = Duration::from_secs(3);

/// The rules of a role that reads these.
fn reads<'a>(resources: impl Iterator<Item = &'a &'a str>) -> Vec<Value> {
    let rule = |resource: &&str| {
        let (group, resource) = resource.split_once('/').unwrap_or(("", resource));
        json!({"apiGroups": [group], "resources": [resource], "verbs": ["get", "list", "watch"]})
    };
    resources.map(rule).collect()
}

#[test]
fn nothing_is_written_while_one_kind_of_objects_is_not_known() {
    let node = Node::quick();
    let cluster = cluster(&node, Version::New);
    let (client, _) = wire(&node, &cluster, "client");
    let (server, addresses) = wire(&node, &cluster, "server");
    cluster.apply(&policy("deny"));
    for (number, held_back) in READ.iter().enumerate() {
        let name = format!("lacks-{number}");
        add_account(&node, &cluster, &name);
        allow(&cluster, &name, &reads(READ.iter().filter(|it| *it != held_back)));
        let (mut daemon, log) = start_as(&node, &cluster, number, &name);
        daemon.wait_until(PATIENCE, || fs::read_to_string(&log).unwrap().contains("is forbidden"));
        sleep(SILENCE);
        let told = answer(&node, port(number), "readyz");
        assert_eq!(told, "not all objects are known yet\n", "without {held_back}");
        assert_eq!(ours(&node), "", "without {held_back}");
        must_reach(&client, &server, &addresses[0].to_string());
        allow(&cluster, &name, &reads(READ.iter()));
        daemon.wait_until(PATIENCE, || is_ready(&node, port(number)));
        assert!(policy_rules(&node).contains(":PODWIRE-TO-"), "with {held_back}");
        must_not_reach(&client, &server, &addresses[0].to_string());
        drop(daemon);
        clean_up(&node, &[]);
    }
}
