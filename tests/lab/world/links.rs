//! Links and their addresses, from `ip -j -d addr`.

use serde_json::{Map, Value};

/// Devices that some kernels put into every namespace; no plugin touches them.
const FALLBACK_DEVICES: [&str; 9] =
    ["tunl0", "sit0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6gre0"];

/// What changes by itself, or only repeats chance: indexes, timers, and ids made from a MAC.
const RESTLESS_KEYS: [&str; 20] = [
    "addr_info",
    "bridge_id",
    "designated_bridge",
    "designated_root",
    "forward_delay_timer",
    "gc_timer",
    "hello_timer",
    "hold_timer",
    "ifindex",
    "ifname",
    "info_kind",
    "info_slave_kind",
    "link_index",
    "link_netnsid",
    "message_age_timer",
    "preferred_life_time",
    "root_id",
    "tcn_timer",
    "topology_change_timer",
    "valid_life_time",
];

/// An address without an end.
const FOREVER: u64 = 4_294_967_295;

/// The links of one namespace.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    pub(crate) place: String,
    pub(crate) list: Vec<Value>,
    vlans: Vec<Value>,
}

impl Links {
    pub(crate) fn new(place: &str, mut list: Vec<Value>, vlans: Vec<Value>) -> Self {
        list.retain(|link| !FALLBACK_DEVICES.contains(&name_of(link)));
        Self { place: place.to_owned(), list, vlans }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.list.iter().map(|link| name_of(link).to_owned()).collect()
    }

    /// Those that somebody set a queueing discipline on, as far as it shows.
    pub(crate) fn limited(&self) -> impl Iterator<Item = &str> {
        let is_limited = |link: &&Value| link["qdisc"] == "tbf" || link["qdisc"] == "htb";
        let is_any_limited = self.list.iter().any(|it| is_limited(&it));
        // What a link receives may be filtered though what it sends is not limited.
        self.list.iter().filter(move |_| is_any_limited).map(name_of)
    }

    /// Why the links are not at rest, if so.
    pub(crate) fn restless(&self) -> Option<String> {
        self.list.iter().find_map(|link| {
            let why = restless(link, &self.list)?;
            Some(format!("{} {}: {why}", self.place, name_of(link)))
        })
    }

    /// The IPv6 addresses of links that are up and have a carrier.
    pub(crate) fn usable_ipv6(&self) -> impl Iterator<Item = &str> {
        let running = |link: &&Value| has_flag(link, "UP") && has_flag(link, "LOWER_UP");
        let all = self.list.iter().filter(running).flat_map(addresses);
        all.filter(|a| a["family"] == "inet6" && a["tentative"] != true)
            .filter_map(|address| address["local"].as_str())
    }

    pub(crate) fn facts(&self) -> Vec<String> {
        let mut facts = Vec::new();
        for link in &self.list {
            let subject = format!("{} link {}", self.place, name_of(link));
            flatten(&mut facts, &subject, "", link);
            for address in addresses(link) {
                facts.push(format!(
                    "{} address {} {}",
                    self.place,
                    name_of(link),
                    address_text(address)
                ));
            }
        }
        for port in &self.vlans {
            let vlans = port["vlans"].as_array().into_iter().flatten();
            let place = self.place.as_str();
            facts.extend(vlans.map(|vlan| format!("{place} vlan {} {vlan}", name_of(port))));
        }
        facts
    }
}

pub(crate) fn name_of(link: &Value) -> &str {
    link["ifname"].as_str().unwrap_or_default()
}

pub(crate) fn addresses(link: &Value) -> impl Iterator<Item = &Value> {
    link["addr_info"].as_array().into_iter().flatten()
}

fn has_flag(link: &Value, flag: &str) -> bool {
    link["flags"].as_array().is_some_and(|flags| flags.iter().any(|f| f == flag))
}

/// A link is at rest when the operational state agrees with the carrier, a bridge port forwards,
/// and each address has passed duplicate address detection. A link without a carrier stays as it is.
fn restless(link: &Value, all: &[Value]) -> Option<&'static str> {
    if name_of(link) == "lo" || !has_flag(link, "UP") {
        return None;
    }
    let carrier = has_flag(link, "LOWER_UP");
    // A bridge that never had a running port keeps its first state, which is unknown.
    let is_running_port =
        |port: &&Value| port["master"] == link["ifname"] && has_flag(port, "LOWER_UP");
    let never_ran = carrier
        && link["linkinfo"]["info_kind"] == "bridge"
        && link["operstate"] == "UNKNOWN"
        && !all.iter().any(|port| is_running_port(&port));
    // An IFB never tells of its state.
    let never_ran = never_ran || link["linkinfo"]["info_kind"] == "ifb";
    let state_is_down = ["DOWN", "LOWERLAYERDOWN"].iter().any(|state| link["operstate"] == *state);
    let agrees = if carrier { link["operstate"] == "UP" || never_ran } else { state_is_down };
    if !agrees {
        return Some("the operational state does not agree with the carrier");
    }
    if !carrier {
        return None;
    }
    let port = &link["linkinfo"]["info_slave_data"]["state"];
    if port.is_string() && port != "forwarding" {
        return Some("the bridge port does not forward yet");
    }
    let mut with_ipv6 = addresses(link).filter(|a| a["family"] == "inet6").peekable();
    if with_ipv6.peek().is_some() && !addresses(link).any(|a| a["scope"] == "link") {
        return Some("IPv6 is on, but there is no link-local address yet");
    }
    with_ipv6
        .any(|a| a["tentative"] == true && a["dadfailed"] != true)
        .then_some("duplicate address detection goes on")
}

/// One fact per value, with the path of its keys; lists are joined.
fn flatten(facts: &mut Vec<String>, subject: &str, path: &str, value: &Value) {
    match value {
        Value::Object(map) => {
            flatten_kind(facts, subject, map);
            for (key, value) in map {
                if !RESTLESS_KEYS.contains(&key.as_str()) {
                    let dot = if path.is_empty() { "" } else { "." };
                    flatten(facts, subject, &format!("{path}{dot}{key}"), value);
                }
            }
        }
        Value::Array(list) => {
            let mut words: Vec<_> = list.iter().map(plain).collect();
            words.sort();
            facts.push(format!("{subject} {path}={}", words.join(",")));
        }
        other => facts.push(format!("{subject} {path}={}", plain(other))),
    }
}

/// `kind=` reads better than the two names that ip gives it, and is what snapshots keep.
fn flatten_kind(facts: &mut Vec<String>, subject: &str, map: &Map<String, Value>) {
    for (key, name) in [("info_kind", "kind"), ("info_slave_kind", "port_of_kind")] {
        if let Some(kind) = map.get(key) {
            facts.push(format!("{subject} {name}={}", plain(kind)));
        }
    }
}

fn address_text(address: &Value) -> String {
    let mut text = format!("{}/{}", plain(&address["local"]), address["prefixlen"]);
    for (key, value) in address.as_object().into_iter().flatten() {
        match key.as_str() {
            "local" | "prefixlen" | "family" => {}
            "valid_life_time" | "preferred_life_time" if value.as_u64() == Some(FOREVER) => {}
            "valid_life_time" | "preferred_life_time" => text.push_str(" not-forever"),
            _ if value == true => text.push_str(&format!(" {key}")),
            _ => text.push_str(&format!(" {key}={}", plain(value))),
        }
    }
    text
}

/// A JSON value without the quotes of a string.
pub(crate) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
