//! The nodes of the cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use cluster::{Change, Client, NodePart, Watch};
use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1;
use ruleset::networks::around;
use tokio::sync::watch;

/// What is needed of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// When it was created, in seconds since 1970. Of two that claim a range the older has it.
    pub created: i64,
    /// `spec.podCIDRs`, without host bits.
    pub pod_ranges: Vec<IpNetwork>,
    /// The addresses of `status.addresses` that are of type InternalIP and can be a next hop.
    pub addresses: Vec<IpAddr>,
}

impl Member {
    /// Its first address of a family.
    #[must_use]
    pub fn address(&self, is_ipv4: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv4() == is_ipv4)
    }
}

/// All nodes, by name.
pub type Members = BTreeMap<String, Member>;

impl From<&v1::Node> for Member {
    fn from(object: &v1::Node) -> Self {
        let spec = object.spec.as_ref();
        let ranges = spec.into_iter().flat_map(|spec| spec.pod_cidrs.iter().flatten());
        let ranges = ranges.filter_map(|range| range.parse::<IpNetwork>().ok());
        let ranges = ranges.filter_map(|range| around(range.ip(), range.prefix()));
        let addresses = object.status.iter().flat_map(|status| status.addresses.iter().flatten());
        let internal = addresses.filter(|it| it.type_ == "InternalIP");
        let internal = internal.filter_map(|it| it.address.parse::<IpAddr>().ok());
        Self {
            name: object.metadata.name.clone().unwrap_or_default(),
            created: object.metadata.creation_timestamp.as_ref().map_or(0, |it| it.0.as_second()),
            pod_ranges: ranges.collect(),
            addresses: internal.map(|it| it.to_canonical()).filter(is_next_hop).collect(),
        }
    }
}

/// Addresses that mean another host, or another one on each link, are no next hops.
fn is_next_hop(address: &IpAddr) -> bool {
    let is_of_link = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !is_of_link && !address.is_loopback() && !address.is_unspecified() && !address.is_multicast()
}

/// Sends all nodes, and again whenever something that is needed of one changes, until nobody
/// receives them any more. Nothing is sent before all are known. Failures are given to `report`;
/// the pauses between them grow to 30 s.
pub async fn watch(
    client: Client,
    members: watch::Sender<Option<Arc<Members>>>,
    report: impl Fn(&cluster::Error),
) {
    let mut nodes = Watch::new(client, |it: NodePart| Member::from(&v1::Node::from(it)));
    loop {
        let change = tokio::select! {
            change = nodes.next() => change,
            () = members.closed() => return,
        };
        match change {
            Err(error) => report(&error),
            Ok(change) => {
                members.send_if_modified(|held| take(held, change));
            }
        }
    }
}

/// Takes in a change; whether it is one.
fn take(held: &mut Option<Arc<Members>>, change: Change<Member>) -> bool {
    let mut now = held.as_deref().cloned().unwrap_or_default();
    match change {
        Change::Listed(members) => {
            now = members.into_iter().map(|it| (it.name.clone(), it)).collect();
        }
        Change::Applied(member) => _ = now.insert(member.name.clone(), member),
        Change::Removed(member) => _ = now.remove(&member.name),
    }
    if held.as_deref() == Some(&now) {
        return false;
    }
    *held = Some(Arc::new(now));
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_node_only_what_can_be_used_is_kept() {
        let object: v1::Node = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "n", "creationTimestamp": "1970-01-01T00:01:00Z"},
            "spec": {"podCIDRs": ["10.244.1.7/24", "fd00:1::/64", "nonsense"]},
            "status": {"addresses": [
                {"type": "Hostname", "address": "n"}, {"type": "ExternalIP", "address": "203.0.113.1"},
                {"type": "InternalIP", "address": "fe80::1"}, {"type": "InternalIP", "address": "192.0.2.1"},
                {"type": "InternalIP", "address": "::ffff:192.0.2.9"}, {"type": "InternalIP", "address": "2001:db8::1"}]}
        }))
        .unwrap();
        let member = Member::from(&object);
        assert_eq!(member.created, 60);
        assert_eq!(
            member.pod_ranges,
            ["10.244.1.0/24", "fd00:1::/64"].map(|it| it.parse().unwrap())
        );
        assert_eq!(member.address(true), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(member.address(false), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(Member::from(&v1::Node::default()), Member::default());
    }

    #[test]
    fn only_changes_of_what_is_needed_are_told() {
        let member =
            |name: &str, created| Member { name: name.into(), created, ..Member::default() };
        let mut held = None;
        assert!(take(&mut held, Change::Listed(vec![])));
        assert!(!take(&mut held, Change::Listed(vec![])));
        assert!(take(&mut held, Change::Applied(member("a", 1))));
        assert!(!take(&mut held, Change::Applied(member("a", 1))));
        assert!(take(&mut held, Change::Applied(member("a", 2))));
        assert!(take(&mut held, Change::Removed(member("a", 2))));
        assert_eq!(held.as_deref(), Some(&Members::new()));
    }
}
