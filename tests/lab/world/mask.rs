//! Names of chance (host veth names, MACs, link-local addresses, paths) replaced by what they mean.
//! The same value gives the same words everywhere, so that who belongs to whom stays visible.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::path::Path;
use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::Value;

use super::links::{Links, name_of};

/// MACs that a test chose begin so, and are told as they are.
const CHOSEN: &str = "02:11:22:";

static VETH: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\bveth[0-9a-f]{8}\b").unwrap());
static MAC: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\b[0-9a-f]{2}(?::[0-9a-f]{2}){5}\b").unwrap());
/// Where the reference prints a pointer in the place of what it points to.
static POINTER: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\b(?:0x[0-9a-f]{9,}|[0-9]{12,15})\b").unwrap());
static LINK_LOCAL: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\bfe80::[0-9a-f:]+").unwrap());

/// The replacements of one dump.
#[derive(Debug, Clone, Default)]
pub struct Mask {
    veths: BTreeMap<String, String>,
    macs: BTreeMap<String, String>,
    link_locals: BTreeMap<Ipv6Addr, String>,
    /// Bridges that carry the MAC of a port of theirs, which with several ports is a matter of chance.
    borrowed: BTreeMap<String, String>,
    literals: Vec<(String, String)>,
}

impl Mask {
    pub(crate) fn new(places: Vec<&Links>) -> Self {
        let mut mask = Self::default();
        mask.name_veths(&places);
        mask.name_macs(&places);
        mask
    }

    /// Replaces a path by a word.
    pub fn literal(&mut self, path: &Path, word: &str) {
        self.literals.push((path.display().to_string(), word.to_owned()));
        // `/proc/1/fd/12` must be replaced before `/proc/1/fd/1`.
        self.literals.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
    }

    /// The text without names of chance.
    #[must_use]
    pub fn apply(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (literal, word) in &self.literals {
            text = text.replace(literal, word);
        }
        // The facts of a bridge are the only place where a bridge's MAC stands.
        if let Some((bridge, mac)) =
            self.borrowed.iter().find(|(bridge, _)| tells_of(&text, bridge))
        {
            text = text.replace(mac, &format!("mac[a port of {bridge}]"));
        }
        let text = POINTER.replace_all(&text, "[a pointer]");
        let text = VETH.replace_all(&text, |found: &Captures| match self.veths.get(&found[0]) {
            Some(name) => name.clone(),
            None => "veth[?]".to_owned(),
        });
        let text = MAC.replace_all(&text, |found: &Captures| self.mac(&found[0]));
        LINK_LOCAL.replace_all(&text, |found: &Captures| self.link_local(&found[0])).into_owned()
    }

    fn mac(&self, mac: &str) -> String {
        let means_itself = mac.starts_with(CHOSEN)
            || ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:80:c2:00:00:00"].contains(&mac);
        if means_itself {
            return mac.to_owned();
        }
        self.macs.get(mac).map_or_else(|| "mac[?]".to_owned(), |owner| format!("mac[{owner}]"))
    }

    fn link_local(&self, address: &str) -> String {
        let Ok(parsed) = address.parse::<Ipv6Addr>() else { return address.to_owned() };
        if parsed.segments()[1..].iter().all(|s| *s == 0) {
            return address.to_owned();
        }
        let owner = self.link_locals.get(&parsed).map_or("?", String::as_str);
        format!("fe80::[{owner}]")
    }

    /// A veth is called after its other end.
    fn name_veths(&mut self, places: &[&Links]) {
        let all = || places.iter().flat_map(|p| p.list.iter().map(move |link| (p, link)));
        for (place, link) in all().filter(|(_, link)| VETH.is_match(name_of(link))) {
            let same_space =
                |name: &Value| name.as_str().map(|peer| format!("{}/{peer}", place.place));
            let elsewhere = || {
                let peers = all().filter(|(there, _)| there.place != place.place);
                let mut ours = peers.filter(|(_, peer)| {
                    peer["ifindex"] == link["link_index"] && peer["link_index"] == link["ifindex"]
                });
                ours.next().map(|(there, peer)| format!("{}/{}", there.place, name_of(peer)))
            };
            if let Some(peer) = same_space(&link["link"]).or_else(elsewhere) {
                self.veths.insert(name_of(link).to_owned(), format!("veth[{peer}]"));
            }
        }
    }

    /// A MAC is called after the link that has it: pods first, then the node's veths, bridges last.
    fn name_macs(&mut self, places: &[&Links]) {
        let rank = |place: &Links, link: &Value| {
            let is_bridge = link["linkinfo"]["info_kind"] == "bridge";
            (is_bridge, place.place == "node", place.place.clone(), self.veth_or_name(link))
        };
        let mut links: Vec<_> =
            places.iter().flat_map(|p| p.list.iter().map(move |l| (rank(p, l), p, l))).collect();
        links.sort_by(|a, b| a.0.cmp(&b.0));
        for ((is_bridge, _, _, name), place, link) in links {
            let Some(mac) = link["address"].as_str() else { continue };
            if is_bridge && self.macs.contains_key(mac) {
                self.borrowed.insert(name_of(link).to_owned(), mac.to_owned());
                continue;
            }
            let owner =
                if place.place == "node" { name } else { format!("{}/{name}", place.place) };
            if let Some(address) = link_local_of(mac) {
                self.link_locals.entry(address).or_insert_with(|| owner.clone());
            }
            self.macs.entry(mac.to_owned()).or_insert(owner);
        }
    }

    fn veth_or_name(&self, link: &Value) -> String {
        let name = name_of(link);
        self.veths.get(name).cloned().unwrap_or_else(|| name.to_owned())
    }
}

/// Whether a line is about a bridge: its own fact, or its entry in a result.
fn tells_of(text: &str, bridge: &str) -> bool {
    text.starts_with(&format!("node link {bridge} "))
        || text.contains(&format!("\"name\":\"{bridge}\""))
}

/// The link-local address that the kernel makes from a MAC (modified EUI-64).
fn link_local_of(mac: &str) -> Option<Ipv6Addr> {
    let bytes: Option<Vec<u8>> = mac.split(':').map(|b| u8::from_str_radix(b, 16).ok()).collect();
    let [a, b, c, d, e, f] = bytes?[..] else { return None };
    let pair = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    let (first, second) = (pair(a ^ 2, b), pair(c, 0xff));
    Some(Ipv6Addr::new(0xfe80, 0, 0, 0, first, second, pair(0xfe, d), pair(e, f)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Vec<Links> {
        let node = r#"[{"ifname":"br0","ifindex":2,"address":"2e:76:45:05:6d:18","linkinfo":{"info_kind":"bridge"}},
            {"ifname":"veth0a0b0c0d","ifindex":3,"link_index":2,"address":"2e:76:45:05:6d:18","master":"br0"}]"#;
        let pod = r#"[{"ifname":"eth0","ifindex":2,"link_index":3,"address":"4e:30:b3:f6:ca:a1"}]"#;
        [("node", node), ("pod1", pod)]
            .into_iter()
            .map(|(place, text)| Links::new(place, serde_json::from_str(text).unwrap(), Vec::new()))
            .collect()
    }

    #[test]
    fn names_of_chance_tell_who_belongs_to_whom() {
        let mut mask = Mask::new(places().iter().collect());
        mask.literal(Path::new("/proc/7/fd/1"), "<netns pod1>");
        mask.literal(Path::new("/proc/7/fd/12"), "<netns pod2>");
        let masked = |text| mask.apply(text);
        assert_eq!(masked("node link veth0a0b0c0d mtu=1500"), "node link veth[pod1/eth0] mtu=1500");
        assert_eq!(masked("a 4e:30:b3:f6:ca:a1"), "a mac[pod1/eth0]");
        assert_eq!(
            masked("node link veth0a0b0c0d address=2e:76:45:05:6d:18"),
            "node link veth[pod1/eth0] address=mac[veth[pod1/eth0]]"
        );
        assert_eq!(
            masked("node link br0 address=2e:76:45:05:6d:18"),
            "node link br0 address=mac[a port of br0]"
        );
        assert_eq!(masked("fe80::4c30:b3ff:fef6:caa1/64"), "fe80::[pod1/eth0]/64");
        assert_eq!(masked("fe80::/64 via fe80::1"), "fe80::/64 via fe80::[?]");
        assert_eq!(masked("/proc/7/fd/12 /proc/7/fd/1"), "<netns pod2> <netns pod1>");
    }

    #[test]
    fn what_is_unknown_or_chosen_stays_told() {
        let mask = Mask::new(places().iter().collect());
        assert_eq!(mask.apply("vethdeadbeef 0e:00:00:00:00:01"), "veth[?] mac[?]");
        assert_eq!(mask.apply("0x3383109109b6 29842125433320"), "[a pointer] [a pointer]");
        assert_eq!(mask.apply("4294967295 0x10"), "4294967295 0x10");
        assert_eq!(
            mask.apply("02:11:22:00:00:01 00:00:00:00:00:00"),
            "02:11:22:00:00:01 00:00:00:00:00:00"
        );
    }
}
