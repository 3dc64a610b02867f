//! policyd is there.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use attachment::HostInterface;
use lab::probe::{must_not_reach, must_reach};
use lab::{Pod, Reply, slowed};
use serde_json::{Value, json};

use crate::agent::{Manner, places};
use crate::site::{Site, addresses, ptp};

#[test]
fn a_pod_comes_is_checked_and_goes() {
    for main in [ptp(), json!({"type": "bridge", "bridge": "br0", "isGateway": true})] {
        let site = Site::new(main);
        let _agent = site.agent(Manner::Works);
        let pod = site.node.pod("pod1");
        let before = site.world(&[&pod]);
        let wired = site.wire(&pod);
        assert_eq!(site.let_pass(), BTreeSet::new());
        let reply = site.protect(&pod, &wired);
        assert_eq!((reply.ok(), reply.stderr.as_str()), (wired.clone(), ""));
        assert_eq!(site.let_pass(), addresses(&wired));
        assert_eq!(site.files(), ["pod1"]);
        let added = site.world(&[&pod]);
        // The same again changes nothing.
        assert_eq!(site.protect(&pod, &wired).ok(), wired);
        site.world(&[&pod]).must_be(&added, "after a second ADD");
        assert!(site.check(&pod, &wired).succeeded());
        let mut other = wired.clone();
        other["ips"][0]["address"] = json!("10.1.99.99/16");
        let text = site.check(&pod, &other).expect_error(102).msg;
        assert!(text.contains("10.1.99.99"), "{text}");
        assert!(site.del(&pod, &wired).succeeded());
        // However often.
        assert!(site.del(&pod, &wired).succeeded());
        site.world(&[&pod]).must_be(&before, "after DEL");
        site.check(&pod, &wired).expect_error(102);
    }
}

#[test]
fn policyd_is_told_who_it_is_and_behind_which_interface() {
    let site = Site::new(ptp());
    let _agent = site.agent(Manner::Works);
    let pod = site.node.pod("pod1");
    let result = site.add(&pod).ok();
    let told = site.file(&pod);
    let host = result["interfaces"][0]["name"].as_str().unwrap();
    assert_eq!(told.host_interface, Some(HostInterface { name: host.into(), bridge: None }));
    assert_eq!((told.ifname.as_str(), told.network.as_str()), ("eth0", "net1"));
    let of_pod = told.pod.unwrap();
    assert_eq!((of_pod.namespace.as_str(), of_pod.name.as_str()), ("x", "pod1"));
    assert_eq!(told.netns, pod.path().display().to_string());

    let bridged = Site::new(json!({"type": "bridge", "bridge": "br0", "isGateway": true}));
    let _agent = bridged.agent(Manner::Works);
    let pod = bridged.node.pod("pod1");
    let result = bridged.add(&pod).ok();
    let host = result["interfaces"][1]["name"].as_str().unwrap();
    let expected = HostInterface { name: host.into(), bridge: Some("br0".into()) };
    assert_eq!(bridged.file(&pod).host_interface, Some(expected));
}

/// What is no veth has no other end on the host.
#[test]
fn an_interface_of_another_kind_has_no_host_interface() {
    let site = Site::new(ptp());
    let _agent = site.agent(Manner::Works);
    let pod = site.node.pod("pod1");
    pod.sh("ip link add eth0 type bridge");
    let sandbox = pod.path();
    let result = json!({"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": sandbox}],
        "ips": [{"address": "10.1.7.7/16", "interface": 0}]});
    let _ = site.protect(&pod, &result).ok();
    assert_eq!(site.file(&pod).host_interface, None);
    assert_eq!(site.let_pass(), ["10.1.7.7".to_owned()].into());
    assert!(site.unprotect(&pod, &result).succeeded());
    assert_eq!(site.let_pass(), BTreeSet::new());
}

#[test]
fn every_version_gets_the_result_that_it_gave() {
    let mut site = Site::new(ptp());
    let _agent = site.agent(Manner::Works);
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        site.set_version(version);
        let pod = site.node.pod("pod1");
        let mut wired = site.wire(&pod);
        let result = site.protect(&pod, &wired).ok();
        if wired.get("ips").is_none() {
            // In the old versions a route without a gateway has the address's.
            for family in ["ip4", "ip6"] {
                wired[family]["routes"][0]["gw"] = wired[family]["gateway"].clone();
            }
        }
        assert_eq!(result, wired);
        assert_eq!(site.let_pass().len(), 2, "{version}");
        assert!(site.del(&pod, &wired).succeeded());
    }
}

#[test]
fn another_network_of_the_pod_is_not_told() {
    let site = Site::new(ptp());
    let pod = site.node.pod("pod1");
    let before = site.world(&[&pod]);
    let result = site.run(&site.main_call("ADD", &pod).ifname("net1")).ok();
    let wired = site.world(&[&pod]);
    // Whether policyd is there or not.
    for _agent in [None, Some(site.agent(Manner::Works))] {
        for command in ["ADD", "CHECK", "DEL"] {
            let reply = site.run(&site.policy_call(command, &pod, &result).ifname("net1"));
            assert!(reply.succeeded(), "{reply}");
        }
        assert_eq!(site.files(), [""; 0]);
        site.world(&[&pod]).must_be(&wired, "after calls for another network");
    }
    assert!(site.run(&site.main_call("DEL", &pod).ifname("net1")).succeeded());
    site.world(&[&pod]).must_be(&before, "after DEL");
    // Unless it is the default network by another name.
    let site = site.with(&json!({"interface": "net1"}));
    let _agent = site.agent(Manner::Works);
    let result = site.run(&site.main_call("ADD", &pod).ifname("net1")).ok();
    let _ = site.run(&site.policy_call("ADD", &pod, &result).ifname("net1")).ok();
    assert_eq!(site.let_pass(), addresses(&result));
    // Which a pod has one of.
    let second = site.wire(&pod);
    let site = site.with(&json!({"interface": "eth0"}));
    let text = site.protect(&pod, &second).expect_error(101).msg;
    assert!(text.contains("attached by \"net1\""), "{text}");
}

#[test]
fn what_is_missing_or_wrong_is_told_before_anything_is() {
    let site = Site::new(ptp());
    let _agent = site.agent(Manner::Works);
    let pod = site.node.pod("pod1");
    let result = site.wire(&pod);
    let text = site.protect(&pod, &Value::Null).expect_error(7).msg;
    assert!(text.contains("prevResult"), "{text}");
    let mut other = result.clone();
    other["ips"] = json!([]);
    let text = site.protect(&pod, &other).expect_error(7).msg;
    assert!(text.contains("no address"), "{text}");
    site.run(&site.policy_call("ADD", &pod, &result).args("FOO=1")).expect_error(4);
    let odd = site.policy_call("ADD", &pod, &result).args("K8S_POD_NAMESPACE=x;K8S_POD_NAME=a/b");
    let text = site.run(&odd).expect_error(101).msg;
    assert!(text.contains("a/b"), "{text}");
    assert_eq!((site.files(), site.let_pass()), (vec![], BTreeSet::new()));
    let site = site.with(&json!({"timeout": "2s", "onAgentDown": "open"}));
    site.protect(&pod, &result).expect_error(6);
    // Which does not keep a pod from going.
    assert!(site.del(&pod, &result).succeeded());
}

#[test]
fn pods_that_have_come_reach_each_other_and_one_that_was_not_told_nobody() {
    let site = Site::new(ptp());
    let _agent = site.agent(Manner::Works);
    let [one, two, three] = ["one", "two", "three"].map(|name| site.node.pod(name));
    let results = [&one, &two].map(|pod| site.add(pod).ok());
    let _ = site.wire(&three);
    for address in addresses(&results[1]) {
        must_reach(&one, &two, &address);
        must_not_reach(&three, &two, &address);
    }
}

#[test]
fn thirty_pods_at_once() {
    let site = Site::new(ptp());
    let _agent = site.agent(Manner::Works);
    let pods: Vec<Pod> = (0..30).map(|n| site.node.pod(&format!("pod{n}"))).collect();
    let before = site.world(&[]);
    let results = for_each(&pods, |pod| site.add(pod));
    let results: Vec<Value> = results.into_iter().map(|(_, reply)| reply.ok()).collect();
    let all: BTreeSet<String> = results.iter().flat_map(addresses).collect();
    assert_eq!((all.len(), site.files().len()), (60, 30));
    assert_eq!(site.let_pass(), all);
    for (_, reply) in for_each(&pods, |pod| site.del(pod, &Value::Null)) {
        assert!(reply.succeeded(), "{reply}");
    }
    site.world(&[]).must_be(&before, "after all have gone");
}

/// Runs a call for each pod, all at once.
fn for_each(pods: &[Pod], call: impl Fn(&Pod) -> Reply + Sync) -> Vec<(usize, Reply)> {
    let next = AtomicUsize::new(0);
    let work = || {
        let number = next.fetch_add(1, Ordering::Relaxed);
        (number, call(&pods[number]))
    };
    thread::scope(|scope| {
        let threads: Vec<_> = pods.iter().map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("the call returns")).collect()
    })
}

/// Nobody else is heard, even where he could reach the socket.
#[test]
fn who_is_not_root_gets_no_answer() {
    let site = Site::new(ptp());
    let _agent = site.agent(Manner::Works);
    let socket = places(&site.node).socket;
    for folder in socket.ancestors().skip(1).take(3) {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let request = String::from_utf8(attachment::Request::Status {}.encode()).unwrap();
    let patience = slowed(Duration::from_secs(10)).as_secs();
    let ask = |uid: u32| {
        site.node.sh(&format!(
            "printf '%s' '{request}' | timeout {patience} setpriv --reuid {uid} --clear-groups \
             perl -MIO::Socket::UNIX -e '$SIG{{PIPE}} = sub {{}}; my $s = IO::Socket::UNIX->new($ARGV[0]) or die $!; \
             $s->print(<STDIN>); $s->flush; print <$s>' {}",
            socket.display()
        ))
    };
    assert!(ask(0).contains("done"));
    assert_eq!(ask(65534).trim(), "");
}
