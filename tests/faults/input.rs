//! Input of all kinds: always exactly one error object, never a trace.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;

use lab::{Call, Node, PLUGINS, Suite, World};
use serde_json::{Value, json};

use crate::common::{
    Site, bandwidth_with_all, bridge_with_all, ptp_with_all, sbr_with_all, tuning_with_all,
};
use crate::{firewall, portmap};

#[test]
fn stdin_that_is_no_configuration_is_refused() {
    let node = Node::quick();
    let podwire = Suite::podwire();
    let pod = node.pod("pod1");
    let deep = "[".repeat(100_000);
    let long =
        format!(r#"{{"cniVersion":"1.0.0","name":"{}","type":"bridge"}}"#, "n".repeat(1 << 20));
    let documents: [(&[u8], &str); 9] = [
        (b"", "nothing"),
        (b"rubbish", "rubbish"),
        (b"{\"name\":\"n\",", "a document that is cut off"),
        (b"[]", "a list"),
        (b"null", "null"),
        (b"\xff\xfe\x00", "bytes that are no text"),
        (b"{\"cniVersion\":\"1.0.0\",\"name\":\"\xff\"}", "a name that is no text"),
        (deep.as_bytes(), "a deep document"),
        (b"{\"name\":{\"a\":1}}", "a name that is an object"),
    ];
    // Whoever removes rules takes the lock, which stays.
    let conf = portmap::conf("nftables");
    let _ = Call::new("portmap", "DEL").netns(&pod.path()).conf(&conf).run(&node, &podwire).ok();
    let before = World::of(&node, &[&pod]);
    for plugin in PLUGINS {
        for command in ["ADD", "DEL", "CHECK", "GC", "STATUS"] {
            for (stdin, what) in documents {
                let call = Call::new(plugin, command).netns(&pod.path()).stdin(stdin);
                let reply = call.run(&node, &podwire);
                let error = reply.error();
                assert_eq!(error.code, 6, "{what}: {reply}");
                assert!(!error.msg.is_empty() && error.version.is_some(), "{what}: {reply}");
            }
        }
        // A name of a million letters is a name; the call fails for another reason, or succeeds.
        let call = Call::new(plugin, "DEL").netns(&pod.path()).stdin(long.as_bytes());
        let reply = call.run(&node, &podwire);
        assert!(reply.succeeded() || reply.error().code != 999, "a long name: {reply}");
    }
    World::of(&node, &[&pod]).must_be(&before, "after all that");
}

/// Every value of a configuration replaced by a value of each other type.
#[test]
fn values_of_wrong_types_are_refused_or_ignored_without_a_trace() {
    let node = Node::quick();
    let podwire = Suite::podwire();
    let pod = node.pod("pod1");
    let before = World::of(&node, &[&pod]);
    for conf in [
        bridge_with_all(),
        ptp_with_all(),
        portmap::conf("nftables"),
        firewall::conf("nftables"),
        tuning_with_all(),
        sbr_with_all(),
        bandwidth_with_all(),
    ] {
        let plugin = conf["type"].as_str().unwrap().to_owned();
        for path in paths(&conf) {
            for wrong in
                [json!(7), json!("x"), json!(true), json!([]), json!({}), json!(1.5), json!([[1]])]
            {
                let mut changed = conf.clone();
                if changed["ipam"].is_object() {
                    changed["ipam"]["dataDir"] = json!(node.data());
                }
                *changed.pointer_mut(&path).expect("the path is there") = wrong.clone();
                // STATUS reads the whole configuration and does nothing.
                changed["cniVersion"] = json!("1.1.0");
                let call = Call::new(&plugin, "STATUS").netns(&pod.path()).conf(&changed);
                let reply = call.run(&node, &podwire);
                let told = reply.succeeded() || [1, 2, 6, 7, 50].contains(&reply.error().code);
                assert!(told, "{path} = {wrong}: {reply}");
            }
        }
    }
    World::of(&node, &[&pod]).must_be(&before, "after all that");
}

/// JSON pointers of all values.
fn paths(value: &Value) -> Vec<String> {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(list) => list.iter().enumerate().map(|(i, v)| (i.to_string(), v)).collect(),
        _ => Vec::new(),
    };
    let below = children.into_iter().flat_map(|(key, value)| {
        let mut all = vec![format!("/{key}")];
        all.extend(paths(value).into_iter().map(|path| format!("/{key}{path}")));
        all
    });
    below.collect()
}

#[test]
fn names_that_are_too_long_are_refused() {
    let node = Node::quick();
    let podwire = Suite::podwire();
    let pod = node.pod("pod1");
    let before = World::of(&node, &[&pod]);
    let long = "abcdefghijklmnop";
    for mut conf in [bridge_with_all(), ptp_with_all()] {
        conf["ipam"]["dataDir"] = json!(node.data());
        let plugin = conf["type"].as_str().unwrap().to_owned();
        let call = Call::new(&plugin, "ADD").netns(&pod.path()).ifname(long).conf(&conf);
        call.run(&node, &podwire).expect_error(4);
    }
    let mut conf = bridge_with_all();
    conf["ipam"]["dataDir"] = json!(node.data());
    conf["bridge"] = json!(long);
    let error = Call::new("bridge", "ADD")
        .netns(&pod.path())
        .conf(&conf)
        .run(&node, &podwire)
        .expect_error(7);
    assert!(error.msg.contains(long), "the text names it: {}", error.msg);
    World::of(&node, &[&pod]).must_be(&before, "after all that");
}

/// Also paths: the result would have to name the namespace by another.
#[test]
fn variables_that_are_no_text_are_refused_by_name() {
    let site = Site::new(bridge_with_all());
    let pod = site.node.pod("pod1");
    let undecodable = pod.link_in(&site.node).into_os_string();
    let undecodable = OsString::from_vec([undecodable.as_bytes(), b"\xff"].concat());
    symlink(pod.path(), &undecodable).unwrap();
    let before = site.world(&[&pod]);
    for name in
        ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_PATH", "CNI_ARGS"]
    {
        for plugin in PLUGINS {
            for command in ["ADD", "DEL", "CHECK", "STATUS"] {
                let call = Call::new(plugin, command).netns(&pod.path()).conf(&site.conf);
                let error = site.run(&call.env(name, &undecodable)).expect_error(4);
                assert!(error.msg.contains(name), "{name}: {}", error.msg);
            }
        }
    }
    site.world(&[&pod]).must_be(&before, "after all that");
}

/// Runtimes cut what they log; the object must be whole on stdout, and stdout only.
#[test]
fn a_closed_or_missing_runtime_is_survived() {
    let node = Node::quick();
    let podwire = Suite::podwire();
    let program = podwire.plugin("bridge");
    let line = format!("CNI_COMMAND=VERSION {} </dev/null >/dev/full", program.display());
    let done = node.try_sh(&line);
    assert!(!done.status.success(), "an answer that cannot be written is no success");
    let line = format!("CNI_COMMAND=VERSION {} <&- | head -c 1", program.display());
    assert_eq!(node.sh(&line), "{");
}

/// A runtime that calls what podwire does not have must read why.
#[test]
fn a_name_that_no_plugin_has_is_an_error_object() {
    let node = Node::quick();
    let podwire = Suite::podwire();
    let pod = node.pod("pod1");
    let program = podwire.plugin("podwire");
    let link = node.home().join("vlan");
    std::os::unix::fs::symlink(&program, &link).unwrap();
    let here = Suite::at("a link", node.home());
    for (name, suite) in [("vlan", &here), ("podwire", &podwire)] {
        for command in ["ADD", "DEL", "VERSION", "NONE"] {
            let call = Call::new(name, command).netns(&pod.path()).conf(&bridge_with_all());
            let error = call.run(&node, suite).expect_error(4);
            assert!(error.msg.contains(name) && error.msg.contains("host-local"), "{}", error.msg);
        }
    }
    // With arguments a person called, whatever the environment.
    let line = format!("CNI_COMMAND=ADD {} --version", program.display());
    assert!(node.sh(&line).starts_with("podwire "));
}

#[test]
fn a_data_directory_that_is_not_there_is_told_and_is_no_failure() {
    let node = Node::quick();
    let program = Suite::podwire().plugin("podwire");
    let done = node.try_sh(&format!("{} ipam list --data-dir /nowhere", program.display()));
    assert!(done.status.success() && done.stdout.is_empty(), "{done:?}");
    assert!(done.stderr.contains("/nowhere, which does not exist"), "{done:?}");
}
