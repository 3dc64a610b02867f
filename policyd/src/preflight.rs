//! Whether the kernel has all that the rules need: one of every kind is loaded into a namespace
//! made for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use caps::{CapSet, Capability, CapsHashSet};
use ipnetwork::IpNetwork;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use runner::Runner;

use crate::dataplane::{self, Dataplane, Kind, Programs};
use crate::iptables::{Family, Settings};
use crate::model::{Direction, NamespacedName, Protocol, Selector};
use crate::plan::{
    AllowRule, ChainKey, Endpoint, HostInterface, Member, NamespaceScope, PeerMatch, Plan,
    PolicyChain, PortMatch, SetKey,
};

/// Why the rules cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No namespace can be made to try them in.
    #[error(
        "no namespace can be made to try the rules in (it takes CAP_SYS_ADMIN, or user namespaces)"
    )]
    Namespace(#[source] io::Error),
    /// The kernel or its programs refused one.
    #[error("the node cannot hold policyd's rules{}", hint(.0))]
    Rules(#[source] dataplane::Error),
}

/// Moves this process, which must have one thread, into a network namespace of its own, which ends
/// with it. Without the right to make one, it makes a user namespace with it.
///
/// # Errors
/// [`Error::Namespace`].
pub fn enter_scratch_namespace() -> Result<(), Error> {
    let namespace = |error: Errno| Error::Namespace(error.into());
    match unshare(CloneFlags::CLONE_NEWNET) {
        Err(Errno::EPERM) => {}
        done => return done.map_err(namespace),
    }
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET).map_err(namespace)?;
    // Mapping root takes CAP_SETFCAP (Linux 5.12), and who is not mapped loses what the namespace
    // gave him when he runs a program, but for this.
    let needed = CapsHashSet::from([Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW]);
    for set in [CapSet::Inheritable, CapSet::Ambient] {
        caps::set(None, set, &needed).map_err(|error| Error::Namespace(io::Error::other(error)))?;
    }
    Ok(())
}

/// Loads one rule of every kind that `settings` lead to into the namespace of this process, which
/// holds none. Rules
/// for the ports of bridges are not tried: to load them has the kernel show iptables the frames of
/// every bridge of the node, for good.
///
/// # Errors
/// [`Error::Rules`], with what is likely missing.
pub fn run<R: Runner + Send>(
    kind: Kind,
    programs: Programs<R>,
    families: &[Family],
    settings: &Settings,
) -> Result<(), Error> {
    let mut settings = settings.clone();
    // Those of the node are not known yet; every family is tried.
    settings.gated.extend(addresses(1).map(IpNetwork::from));
    let mut dataplane = Dataplane::new(kind, programs, families, settings);
    dataplane.assume_nothing();
    dataplane.adopt(&plan()).map_err(Error::Rules)
}

/// An address of each family, of those that are for documentation.
fn addresses(last: u8) -> [IpAddr; 2] {
    [[192, 0, 2, last].into(), [0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()].into()]
}

/// A plan with every kind of set, match and chain.
fn plan() -> Plan {
    let policy = NamespacedName { namespace: "preflight".into(), name: "every-kind".into() };
    let pods = SetKey::Pods {
        namespaces: NamespaceScope::Named(policy.namespace.clone()),
        pods: Selector::default(),
    };
    let networks = addresses(1).map(IpNetwork::from);
    let blocks = SetKey::Networks(networks.into());
    let mut plan = Plan::default();
    plan.sets.insert(pods.clone(), addresses(1).map(Member::Address).into());
    plan.sets.insert(blocks.clone(), networks.map(Member::Network).into());
    for direction in [Direction::Ingress, Direction::Egress] {
        let (protocol, name) = (Protocol::Tcp, "http".to_owned());
        let named = SetKey::NamedPort { name, protocol, direction };
        let ports = addresses(1).map(|it| Member::AddressPort(it, protocol, 80));
        plan.sets.insert(named.clone(), ports.into());
        let several = BTreeSet::from([(80, 80), (443, 443), (8000, 8080)]);
        let kinds = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        let rule = |peer, port| AllowRule { entry: 0, peer, port };
        let mut rules = vec![
            rule(PeerMatch::Any, PortMatch::Any),
            rule(PeerMatch::Set(pods.clone()), PortMatch::Named(named)),
            rule(PeerMatch::Set(blocks.clone()), PortMatch::Any),
        ];
        rules.extend(networks.map(|it| rule(PeerMatch::Network(it), PortMatch::Any)));
        let one = BTreeSet::from([(80, 80)]);
        for protocol in kinds {
            rules.push(rule(PeerMatch::Any, PortMatch::Protocol(protocol)));
            rules.push(rule(PeerMatch::Any, PortMatch::Ports(protocol, one.clone())));
            rules.push(rule(PeerMatch::Any, PortMatch::Ports(protocol, several.clone())));
        }
        let key = ChainKey { policy: policy.clone(), uid: "preflight".into(), direction };
        plan.chains.insert(key, PolicyChain { rules });
    }
    let chains = |direction: Direction| -> BTreeSet<ChainKey> {
        plan.chains.keys().filter(|key| key.direction == direction).cloned().collect()
    };
    let endpoint = |label: &str, interface: Option<HostInterface>, last: u8| Endpoint {
        label: label.into(),
        addresses: addresses(last).into(),
        interface,
        ingress: Some(chains(Direction::Ingress)),
        egress: Some(chains(Direction::Egress)),
    };
    let interface = HostInterface { name: "preflight".into(), bridge: None };
    // The one has an interface, and so is told by it; the other is told by its address.
    plan.endpoints = BTreeMap::from([
        ("bound".into(), endpoint("preflight/bound", Some(interface), 1)),
        ("unbound".into(), endpoint("preflight/unbound", None, 2)),
    ]);
    plan
}

/// What is likely missing, by the line that was refused.
fn hint(error: &dataplane::Error) -> String {
    let dataplane::Error::Refused { line: Some(line), .. } = error else { return String::new() };
    let modules = modules(line);
    if modules.is_empty() {
        return String::new();
    }
    format!(" (is one of these missing in the kernel: {}?)", modules.join(", "))
}

/// The kernel modules that a line of `iptables-restore` or `ipset restore` needs.
fn modules(line: &str) -> Vec<String> {
    let words: Vec<_> = line.split_whitespace().collect();
    if let ["create", _, kind, ..] = words.as_slice() {
        return vec![
            "ip_set".to_owned(),
            format!("ip_set_{}", kind.replace(':', "_").replace(',', "")),
        ];
    }
    let mut modules = Vec::new();
    for pair in words.windows(2) {
        match pair {
            ["-m", "tcp" | "udp"] => modules.push("xt_tcpudp".to_owned()),
            // Part of the tables themselves.
            ["-m", "icmp6"] => {}
            ["-m", name] => modules.push(format!("xt_{name}")),
            ["-j", "MARK"] => modules.push("xt_mark".to_owned()),
            ["-j", "REJECT"] => modules.push("ipt_REJECT or ip6t_REJECT".to_owned()),
            ["-j", "NFLOG"] => modules.push("xt_NFLOG, nfnetlink_log".to_owned()),
            _ => {}
        }
    }
    if !modules.is_empty() {
        modules.push("nft_compat (with iptables-nft)".to_owned());
    }
    modules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_likely_missing_is_told() {
        for (line, expected) in [
            ("create podwire-4-x hash:ip,port family inet -exist", "ip_set, ip_set_hash_ipport"),
            (
                "-A C -m set --match-set s src -m comment --comment c -j MARK --set-xmark 0x1/0x1",
                "xt_set, xt_comment, xt_mark, nft_compat (with iptables-nft)",
            ),
            ("COMMIT", ""),
        ] {
            assert_eq!(modules(line).join(", "), expected);
        }
    }
}
