//! Which addresses of the node have node ports (kube-proxy's `--nodeport-addresses`).

use std::collections::BTreeSet;
use std::future::pending;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use cluster::Listener;
use ipnetwork::IpNetwork;
use netlink::{Address, Monitor, Socket};
use tokio::time::{Instant, sleep_until};

use crate::plan::Node;

/// Where pods come and go, so do addresses: they are not looked at more often.
const PAUSE: Duration = Duration::from_secs(1);
/// The same after that has failed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// Some addresses of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    /// Those that the cluster knows it by (`InternalIP`).
    Primary,
    /// Those of all its interfaces that others may reach.
    All,
    /// Those that the node alone reaches, of IPv4: 127.0.0.1, and what else of 127.0.0.0/8 its interfaces have.
    Localhost,
    /// Those of its interfaces that are in this range.
    Range(IpNetwork),
}

impl FromStr for Addresses {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "not primary, all, localhost, nor a range of addresses";
        match text {
            "primary" => Ok(Self::Primary),
            "all" => Ok(Self::All),
            "localhost" => Ok(Self::Localhost),
            // A single address is no range.
            range if range.contains('/') => range.parse().map(Self::Range).map_err(|_| WRONG),
            _ => Err(WRONG),
        }
    }
}

impl Addresses {
    /// A node as the cluster tells of it, with those of its addresses that are wanted, as they are now.
    #[must_use]
    pub fn of_node(wanted: &[Self], told: Node) -> Node {
        NodeAddresses::with(wanted.to_vec(), None).of(told)
    }

    /// Whether an address of an interface is one of them.
    fn has(self, address: IpAddr) -> bool {
        match self {
            Self::Primary => false,
            Self::All => !is_link_local(address) && !address.is_loopback(),
            Self::Localhost => address.is_loopback(),
            Self::Range(range) => {
                range.contains(address) && (self.is_of_localhost() || !address.is_loopback())
            }
        }
    }

    /// Whether they are such as the node alone reaches, of IPv4. Of a wider range these are left out: what it takes to serve
    /// them is to be asked for.
    #[must_use]
    pub fn is_of_localhost(self) -> bool {
        match self {
            Self::Primary | Self::All => false,
            Self::Localhost => true,
            Self::Range(IpNetwork::V4(range)) => range.ip().is_loopback() && range.prefix() >= 8,
            Self::Range(IpNetwork::V6(_)) => false,
        }
    }
}

fn need_interfaces(wanted: &[Addresses]) -> bool {
    wanted.iter().any(|it| *it != Addresses::Primary)
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// The node, with those of its addresses that are wanted, as they are now.
#[derive(Debug)]
pub(super) struct NodeAddresses {
    wanted: Vec<Addresses>,
    /// The node as the cluster tells of it.
    told: Option<Node>,
    /// Those of its interfaces.
    held: BTreeSet<IpAddr>,
    changes: Option<Listener<Monitor>>,
    looked: Instant,
    next_look: Option<Instant>,
}

impl NodeAddresses {
    pub(super) fn new(wanted: Vec<Addresses>) -> Self {
        let changes = need_interfaces(&wanted)
            .then(|| Listener::new("addresses", Monitor::of_addresses()))
            .and_then(|opened| {
                let warn = |error: &std::io::Error| {
                    tracing::warn!(error = cluster::chain(error), "changes of addresses are not told by the kernel: node ports stay at those that there are now");
                };
                opened.inspect_err(warn).ok()
            });
        // Only now are they looked at: what changes from here on is told.
        Self::with(wanted, changes)
    }

    fn with(wanted: Vec<Addresses>, changes: Option<Listener<Monitor>>) -> Self {
        let mut addresses = Self {
            wanted,
            told: None,
            held: BTreeSet::new(),
            changes,
            looked: Instant::now(),
            next_look: None,
        };
        if need_interfaces(&addresses.wanted) {
            addresses.look();
        }
        addresses
    }

    /// The node as the cluster tells of it is this, and with its addresses that.
    pub(super) fn of(&mut self, told: Node) -> Node {
        let node = self.with_addresses(&told);
        self.told = Some(told);
        node
    }

    /// Whether all are wanted.
    pub(super) fn are_all(&self) -> bool {
        self.wanted.contains(&Addresses::All)
    }

    /// Waits until there may be others.
    pub(super) async fn changed(&mut self) {
        let Some(changes) = &mut self.changes else { return pending().await };
        let due = match self.next_look {
            Some(due) => due,
            None => {
                changes.next(Monitor::receive).await;
                *self.next_look.insert(self.looked + PAUSE)
            }
        };
        sleep_until(due).await;
    }

    /// The node with those that there are now, once the cluster has told of it.
    pub(super) fn renewed(&mut self) -> Option<Node> {
        self.look();
        self.told.as_ref().map(|it| self.with_addresses(it))
    }

    fn look(&mut self) {
        self.looked = Instant::now();
        self.next_look = None;
        match Socket::open().and_then(|mut it| it.all_addresses()) {
            Ok(all) => self.held = reachable(&all),
            Err(error) => {
                tracing::warn!(
                    error = cluster::chain(&error),
                    "the addresses of interfaces cannot be listed: node ports stay where they are"
                );
                self.next_look = Some(self.looked + PAUSE_AFTER_FAILURE);
            }
        }
    }

    fn with_addresses(&self, told: &Node) -> Node {
        let mut addresses = BTreeSet::new();
        if self.wanted.contains(&Addresses::Primary) {
            addresses.extend(&told.addresses);
        }
        let is_wanted = |it: &&IpAddr| self.wanted.iter().any(|some| some.has(**it));
        addresses.extend(self.held.iter().filter(is_wanted));
        Node { addresses, ..told.clone() }
    }
}

/// Those that are the node's own. Not `::1`: no packet from it or to it leaves the loopback, whatever is done to it.
fn reachable(all: &[Address]) -> BTreeSet<IpAddr> {
    let usable = all.iter().filter(|it| !it.is_duplicate).map(|it| it.cidr.ip());
    usable.filter(|it| it.is_ipv4() || !it.is_loopback()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses<const COUNT: usize>(texts: [&str; COUNT]) -> BTreeSet<IpAddr> {
        texts.map(|it| it.parse().unwrap()).into()
    }

    fn chosen(wanted: &[&str]) -> BTreeSet<IpAddr> {
        let held = [
            "127.0.0.1/8",
            "::1/128",
            "192.0.2.1/24",
            "203.0.113.5/24",
            "169.254.1.1/32",
            "fe80::1/64",
            "2001:db8::1/64",
        ];
        let held = held.map(|it| Address {
            link: 1,
            cidr: it.parse().unwrap(),
            is_tentative: false,
            is_duplicate: false,
        });
        let duplicate =
            Address { cidr: "203.0.113.6/24".parse().unwrap(), is_duplicate: true, ..held[2] };
        let all: Vec<_> = held.into_iter().chain([duplicate]).collect();
        let mut node = NodeAddresses::new(vec![Addresses::Primary]);
        node.wanted = wanted.iter().map(|it| it.parse().unwrap()).collect();
        node.held = reachable(&all);
        node.of(Node { addresses: addresses(["198.51.100.9"]), ..Node::default() }).addresses
    }

    #[test]
    fn addresses_are_the_clusters_those_of_all_interfaces_or_of_a_range() {
        assert_eq!(chosen(&["primary"]), addresses(["198.51.100.9"]));
        assert_eq!(chosen(&["all"]), addresses(["192.0.2.1", "203.0.113.5", "2001:db8::1"]));
        assert_eq!(chosen(&["203.0.113.0/24", "fe80::/10"]), addresses(["203.0.113.5", "fe80::1"]));
        assert_eq!(chosen(&["169.254.0.0/16"]), addresses(["169.254.1.1"]));
        assert_eq!(chosen(&["primary", "192.0.2.0/24"]), addresses(["192.0.2.1", "198.51.100.9"]));
        // The node's own are to be asked for.
        assert_eq!(chosen(&["0.0.0.0/0"]), addresses(["169.254.1.1", "192.0.2.1", "203.0.113.5"]));
        for text in ["localhost", "127.0.0.0/8", "127.0.0.1/32"] {
            assert!(text.parse::<Addresses>().unwrap().is_of_localhost());
            assert_eq!(chosen(&[text, "::1/128"]), addresses(["127.0.0.1"]));
        }
        for text in ["126.0.0.0/7", "0.0.0.0/0", "all", "primary", "::1/128"] {
            assert!(!text.parse::<Addresses>().unwrap().is_of_localhost(), "{text}");
        }
    }

    #[test]
    fn nothing_else_names_addresses() {
        for text in ["", "127.0.0.1", "192.0.2.1", "192.0.2.0/33", "Primary"] {
            assert!(text.parse::<Addresses>().is_err(), "{text}");
        }
    }
}
