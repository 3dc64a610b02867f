//! A node's rules of nf_tables are saved by nft and restored, as its service does: they are as good as those that podwire
//! made.

use lab::Call;
use serde_json::{Value, json};

use crate::common::{Site, bandwidth_with_all, bridge_with_all};

/// Saves all rules, and makes them anew.
fn restore(site: &Site) {
    let file = site.node.home().join("ruleset");
    let file = file.display();
    site.node.sh(&format!("nft list ruleset > {file}; nft flush ruleset; nft -f {file}"));
}

/// A node whose containers somebody else has made.
fn site() -> Site {
    Site::new(json!({"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}))
}

fn run(site: &Site, command: &str, container: &str, conf: &Value) {
    let plugin = conf["type"].as_str().expect("a configuration has a type");
    let call = Call::new(plugin, command).container(container).env("CNI_NETNS", "/run/netns/gone");
    let reply = site.run(&call.conf(conf));
    assert!(reply.succeeded(), "{command} of {container}: {reply}");
}

/// Each way to publish a port makes other maps.
#[test]
fn ports_are_published_beside_those_that_were_restored() {
    let of = |number: u16, address: &str, host_ip: &str, keys: Value| {
        let mapping = json!({"hostPort": 8080 + number, "containerPort": 80, "protocol": "tcp", "hostIP": host_ip});
        let mut conf = json!({"cniVersion": "1.0.0", "name": "net1", "type": "portmap", "backend": "nftables",
            "runtimeConfig": {"portMappings": [mapping]},
            "prevResult": {"cniVersion": "1.0.0", "interfaces": [{"name": "eth0", "sandbox": "/n"}],
                "ips": [{"address": address, "interface": 0}]}});
        for (key, value) in keys.as_object().expect("keys are an object") {
            conf[key] = value.clone();
        }
        (format!("container-{number}"), conf)
    };
    let first = of(0, "10.1.0.2/16", "", json!({}));
    let others = [
        of(1, "10.1.0.3/16", "", json!({})),
        of(2, "10.1.0.4/24", "", json!({})),
        of(3, "10.1.0.5/16", "192.0.2.1", json!({})),
        of(4, "fd00:1::6/64", "", json!({})),
        of(5, "10.1.0.7/16", "", json!({"conditionsV4": ["iifname", "x"]})),
        of(6, "10.1.0.8/16", "", json!({"markMasqBit": 5})),
    ];
    let site = site();
    let all = || [&first].into_iter().chain(&others);
    let must = |command, it: &(String, Value)| run(&site, command, &it.0, &it.1);
    all().for_each(|it| must("ADD", it));
    all().for_each(|it| must("DEL", it));
    let before = site.world(&[]);
    for empties_a_chain in [false, true] {
        must("ADD", &first);
        restore(&site);
        if empties_a_chain {
            site.node.sh("nft flush chain inet podwire-portmap hostports");
        } else {
            must("CHECK", &first);
        }
        others.iter().for_each(|it| must("ADD", it));
        all().for_each(|it| must("CHECK", it));
        restore(&site);
        all().for_each(|it| must("CHECK", it));
        all().for_each(|it| must("DEL", it));
        site.world(&[]).must_be(&before, "after all have gone");
    }
}

#[test]
fn bridges_are_kept_apart_beside_those_that_were_restored() {
    let site = site();
    let world = || {
        let mut world = site.world(&[]);
        // Nobody had needed podwire's lock before.
        world.lines.retain(|line| !line.contains("/run/podwire/"));
        world
    };
    let before = world();
    let of = |bridge: &str, policy: &str| {
        json!({"cniVersion": "1.1.0", "name": format!("net-{bridge}"), "type": "firewall",
            "backend": "nftables", "ingressPolicy": policy,
            "prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": bridge}],
                "ips": [{"address": "10.1.0.2/16"}]}})
    };
    let confs = [of("br0", "isolated"), of("br1", "same-bridge"), of("br2", "isolated")];
    run(&site, "ADD", "a", &confs[0]);
    restore(&site);
    run(&site, "CHECK", "a", &confs[0]);
    run(&site, "ADD", "b", &confs[1]);
    restore(&site);
    site.node.sh("nft flush chain inet podwire-firewall forward");
    run(&site, "ADD", "c", &confs[2]);
    // A set that somebody has taken is made again, and what it had.
    restore(&site);
    site.node.sh("nft flush chain inet podwire-firewall forward; nft delete map inet podwire-firewall within");
    run(&site, "ADD", "c", &confs[2]);
    for conf in &confs {
        run(&site, "CHECK", "a", conf);
    }
    for mut conf in confs {
        conf["cni.dev/valid-attachments"] = json!([]);
        let gc = Call::new("firewall", "GC").unset("CNI_CONTAINERID").unset("CNI_IFNAME");
        let reply = site.run(&gc.conf(&conf));
        assert!(reply.succeeded(), "{reply}");
    }
    world().must_be(&before, "after all have gone");
}

#[test]
fn masquerading_and_limits_work_beside_those_that_were_restored() {
    let mut bridge = bridge_with_all();
    bridge["ipMasqBackend"] = json!("nftables");
    bridge["macspoofchk"] = json!(true);
    let site = Site::new(bridge);
    let pods = ["pod1", "pod2"].map(|it| site.node.pod(it));
    let (before, mut attached) = (site.world(&[]), Vec::new());
    let limit = |command, pod: &lab::Pod, result: &Value| {
        let mut conf = bandwidth_with_all();
        conf["prevResult"] = result.clone();
        let call = Call::new("bandwidth", command).container(pod.name()).netns(&pod.path());
        let reply = site.run(&call.conf(&conf));
        assert!(reply.succeeded(), "{command}: {reply}");
    };
    for pod in &pods {
        let result = site.add(pod).ok();
        limit("ADD", pod, &result);
        attached.push((pod, result));
        restore(&site);
        for (pod, result) in &attached {
            let keys = site.conf_with(&json!({"prevResult": result}));
            let _ = site.run(&site.call("CHECK", pod).conf(&keys)).ok();
            limit("CHECK", pod, result);
        }
    }
    for (pod, result) in &attached {
        limit("DEL", pod, result);
        let _ = site.del(pod).ok();
    }
    site.world(&[]).must_be(&before, "after all have gone");
}
