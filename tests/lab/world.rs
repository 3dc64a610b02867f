//! Dumps of the world: all that plugins can change, one fact a line, sorted, and without what
//! differs from one run to the next.

mod files;
mod firewall;
mod links;
mod mask;
mod routes;
mod sysctls;
mod traffic_control;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::diff::difference;
use crate::node::{Node, Pod};
use crate::space::Space;

use links::Links;
pub use mask::Mask;

/// One look at a namespace, with as few programs as can be: dumps are most of what the tests run.
/// Most have no rules at all, which one program tells. Where the programs of iptables are not, neither are
/// their rules.
const LOOK: &str = r#"
ip -j -d -batch - <<END
addr show
route show table all
rule show
END
echo
ip -6 -j rule show
echo
bridge -j vlan show
echo ===
tables=$(nft list tables; cat /proc/net/ip_tables_names /proc/net/ip6_tables_names 2>/dev/null || :)
[ -n "$tables" ] || exit 0
for it in iptables-save ip6tables-save; do
    ! command -v $it >/dev/null || $it
    echo ===
done
nft -j list ruleset
"#;

/// The kernel needs up to two seconds for duplicate address detection, and on a busy machine its
/// workers take more to tell of carriers; thirty are a hang.
const SETTLE: Duration = Duration::from_secs(30);

/// What is there, in words that do not depend on chance.
#[derive(Debug, Clone)]
pub struct World {
    /// The facts, sorted.
    pub lines: Vec<String>,
    /// How the names of chance were replaced; for texts that go with this dump.
    pub mask: Mask,
}

/// One namespace with the name that its facts carry.
struct Place<'a> {
    name: &'a str,
    space: &'a Space,
    path: PathBuf,
}

/// What [`LOOK`] told.
struct Look {
    links: Links,
    routes_and_rules: [Vec<Value>; 3],
    firewall: String,
    traffic_control: String,
}

impl Look {
    fn at(place: &Place) -> Self {
        let text = place.space.sh(LOOK);
        let (json, firewall) = text.split_once("===\n").expect("the script prints it");
        let lists = serde_json::Deserializer::from_str(json).into_iter::<Vec<Value>>();
        let lists: Vec<_> = lists.map(|list| list.expect("ip prints JSON")).collect();
        let [links, routes, rules4, rules6, vlans]: [Vec<Value>; 5] =
            lists.try_into().unwrap_or_else(|_| panic!("a list for each question: {json}"));
        let links = Links::new(place.name, links, vlans);
        Self {
            traffic_control: traffic_control::look(place.space, &links),
            links,
            routes_and_rules: [routes, rules4, rules6],
            firewall: firewall.to_owned(),
        }
    }
}

impl World {
    /// Dumps a node, its pods and the files below its data directory, once the kernel has settled.
    #[must_use]
    pub fn of(node: &Node, pods: &[&Pod]) -> Self {
        let mut places = vec![place("node", node)];
        places.extend(pods.iter().map(|pod| place(pod.name(), pod)));
        let looks = settled(&places);
        let mut mask = Mask::new(looks.iter().map(|look| &look.links).collect());
        for place in &places {
            mask.literal(&place.path, &format!("<netns {}>", place.name));
        }
        mask.literal(node.home(), "<home>");
        let mut lines = Vec::new();
        for (place, look) in places.iter().zip(&looks) {
            lines.extend(look.links.facts());
            lines.extend(routes::facts(place.name, &look.routes_and_rules));
            lines.extend(firewall::facts(place.name, &look.firewall));
            lines.extend(traffic_control::facts(place.name, &look.traffic_control));
            lines.extend(sysctls::facts(place.name, place.space, &look.links.names()));
        }
        lines = lines.iter().map(|line| mask.apply(line)).collect();
        for (root, name) in
            [(node.data(), ""), (node.var_lib(), "/var/lib/"), (node.run_dir(), "/run/")]
        {
            lines.extend(files::facts(&root, name).iter().map(|line| mask.apply(line)));
        }
        lines.sort();
        Self { lines, mask }
    }

    /// The facts that a reader wants to see: without what the kernel derives from the others.
    #[must_use]
    pub fn brief(&self) -> String {
        let told = self.lines.iter().filter(|line| is_telling(line));
        told.map(|line| format!("{line}\n")).collect()
    }

    /// The world without a bridge and its addresses, which by design outlive the pods.
    #[must_use]
    pub fn without_bridge(&self, bridge: &str) -> Self {
        let mut world = self.clone();
        world.lines.retain(|line| !line.split([' ', '=']).any(|word| word == bridge));
        world
    }

    /// Panics with the difference unless the world is as it was.
    pub fn must_be(&self, before: &Self, when: &str) {
        let found = difference(&before.lines, &self.lines);
        assert!(found.is_empty(), "{when}, the world is not as before (- gone, + new):\n{found}");
    }

    /// Panics unless some fact matches each of the patterns.
    pub fn must_have(&self, patterns: &[&str]) {
        for pattern in patterns {
            let wanted = regex::Regex::new(pattern).expect("the pattern is a regular expression");
            let found = self.lines.iter().any(|line| wanted.is_match(line));
            assert!(found, "no fact matches {pattern:?}:\n{}", self.lines.join("\n"));
        }
    }
}

fn place<'a>(name: &'a str, space: &'a Space) -> Place<'a> {
    Place { name, space, path: space.path() }
}

impl Look {
    /// Why the namespace is not at rest, if so. An IPv6 address has its route only when a worker of the
    /// kernel has come to it, even where no duplicate is looked for.
    fn restless(&self) -> Option<String> {
        let [routes, ..] = &self.routes_and_rules;
        let is_routed = |address: &str| {
            routes.iter().any(|route| route["type"] == "local" && route["dst"] == address)
        };
        let mut lost = self.links.usable_ipv6().filter(|address| !is_routed(address));
        let unrouted = || lost.next().map(|address| format!("{address} has no route yet"));
        self.links.restless().or_else(unrouted)
    }
}

/// Looks when carriers, operational states and addresses have come to rest.
fn settled(places: &[Place]) -> Vec<Look> {
    let started = Instant::now();
    loop {
        let looks: Vec<_> = places.iter().map(Look::at).collect();
        let Some(why) = looks.iter().find_map(Look::restless) else { return looks };
        assert!(started.elapsed() < SETTLE, "the kernel does not settle: {why}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a line belongs into a snapshot that people read.
fn is_telling(line: &str) -> bool {
    const LINK_KEYS: [&str; 9] = [
        "address=",
        "flags=",
        "hairpin=",
        "isolated=",
        "kind=",
        "master=",
        "mtu=",
        "operstate=",
        "vlan_filtering=",
    ];
    let words: Vec<&str> = line.split(' ').collect();
    match words.get(1).copied().unwrap_or_default() {
        "link" => {
            (words[2] != "lo" || words[0] != "node")
                && LINK_KEYS.iter().any(|key| words[3].rsplit('.').next().unwrap().starts_with(key))
        }
        "address" => words[2] != "lo" || words[0] != "node",
        "route4" | "route6" => words[2] != "local" && !line.contains(" fe80::/64 "),
        "rule4" | "rule6" => {
            !["priority=0", "priority=32766", "priority=32767"].contains(&words[2])
        }
        "sysctl" => words[2] != "lo" && !line.ends_with("/route_localnet=0"),
        // What every port has where the kernel has VLANs of bridges, which not all kernels have.
        "vlan" => !line.ends_with(r#"{"vlan":1,"flags":["PVID","Egress Untagged"]}"#),
        _ => true,
    }
}
