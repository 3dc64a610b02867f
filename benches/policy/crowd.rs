//! What other pods of the node, and their policies, cost packets between two that have one policy.

use std::fs;
use std::net::Ipv4Addr;

use lab::{Daemon, Node, policyd, program};
use serde_json::{Value, json};

use crate::contestant::Contestant;
use crate::path::{PORT, Path, round};
use crate::site::{CLIENT, SERVER, Site};
use crate::world::{NODE, RANGE, local_pod, namespace, node, policy};

/// A node with so many others.
#[derive(Debug)]
pub(crate) struct Crowd {
    pub(crate) pods: usize,
    pub(crate) path: Path,
    /// While policyd's tables sleep.
    asleep: Path,
}

impl Crowd {
    /// What is left of the connections that come while policyd's tables sleep: nodes that are made alike differ by some percent
    /// for as long as they live.
    pub(crate) fn share(&self) -> Option<f64> {
        let rates = [&self.path, &self.asleep].map(|it| it.connections_per_second.iter());
        let [awake, asleep] = rates;
        measuring::median(
            &awake.zip(asleep).map(|(awake, asleep)| awake / asleep).collect::<Vec<_>>(),
        )
    }

    fn pair(&mut self, site: &Site, is_asleep_first: bool) {
        for is_asleep in [is_asleep_first, !is_asleep_first] {
            for table in site.node.sh("nft list tables").lines() {
                site.node.sh(&measuring::dormant(table, is_asleep));
            }
            round(if is_asleep { &mut self.asleep } else { &mut self.path }, site);
        }
    }
}

/// By nf_tables: nodes with each of these numbers of policies and of pods, in turns.
pub(crate) fn run(policies: &[usize], pods: &[usize], rounds: usize) -> Vec<Crowd> {
    let control = Node::quick();
    let sizes = pods.iter().flat_map(|pods| policies.iter().map(|policies| (*pods, *policies)));
    let mut all: Vec<_> = (1..)
        .zip(sizes)
        .map(|(number, (pods, policies))| {
            eprintln!("{policies} policies of {pods} other pods ...");
            let site = Site::new(&control, number);
            enforce(&site, &objects(pods, policies));
            let path = || Path::new(policies, Some(Contestant::Nftables));
            (Crowd { pods, path: path(), asleep: path() }, site)
        })
        .collect();
    for turn in 0..rounds {
        for (crowd, site) in &mut all {
            crowd.pair(site, turn % 2 == 1);
        }
        // None is always the first, or always after the same.
        all.rotate_left(1);
    }
    all.sort_by_key(|(crowd, _)| (crowd.pods, crowd.path.policies));
    all.into_iter().map(|(crowd, _)| crowd).collect()
}

/// policyd writes what they say, and ends: its rules stay.
fn enforce(site: &Site, objects: &[Value]) {
    let folder = site.node.home().join("manifests");
    fs::create_dir(&folder).expect("a folder of ours");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    fs::write(folder.join("all.json"), list.to_string()).expect("a file of ours");
    let mut command = program(policyd());
    command.env_remove("KUBECONFIG").args(["--backend", "nftables", "--node-name", NODE]);
    command.args(["--pod-cidr", RANGE, "--manifests"]).arg(folder);
    command.arg("--run-dir").arg(site.node.run_dir().join("podwire"));
    let log = site.node.home().join("policyd.log");
    let mut daemon = Daemon::start("policyd", command, &site.node, log);
    let ask = "curl -sf --max-time 2 http://127.0.0.1:9099/readyz";
    let patience = Contestant::Nftables.patience();
    daemon.wait_until(patience, || site.node.try_sh(ask).status.success());
    daemon.kill();
}

fn objects(pods: usize, policies: usize) -> Vec<Value> {
    let selecting = |number: usize| json!({"podSelector": {"matchLabels": {"crowd": format!("c{}", number % pods)}}});
    let ends = json!({"podSelector": {"matchLabels": {"app": "end"}}});
    let ports = json!([{"port": PORT}]);
    let both = json!({"podSelector": ends["podSelector"], "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [ends], "ports": ports}], "egress": [{"to": [ends], "ports": ports}]});
    let of_ends = [("server", SERVER), ("client", CLIENT)]
        .map(|(name, address)| local_pod(name, address, &json!({"app": "end"})));
    let other = |number: usize| {
        let address = Ipv4Addr::new(10, 1, (number / 250) as u8, (number % 250 + 2) as u8);
        let labels = json!({"crowd": format!("c{number}")});
        local_pod(&format!("other-{number}"), address, &labels)
    };
    let of_other = |number: usize| {
        let ports = json!([{"port": 1000 + number % 1000}]);
        let mut spec = selecting(number);
        spec["ingress"] = json!([{"from": [selecting(number + 1)], "ports": ports}]);
        policy("ns0", &format!("other-{number}"), &spec)
    };
    let mut objects = vec![node(), namespace("ns0", "t0"), policy("ns0", "ends", &both)];
    objects.extend(of_ends);
    objects.extend((0..pods).map(other));
    objects.extend((0..policies).map(of_other));
    objects
}
