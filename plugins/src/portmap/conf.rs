//! The portmap plugin's configuration.

use std::collections::BTreeMap;
use std::net::IpAddr;

use cni::decode::{Element, Fields};
use cni::{AddResult, Call, NetConf};
use ipnetwork::IpNetwork;
use ruleset::nft::Match;

use super::conditions;
use super::iptables::HOSTPORTS;
use super::mapping::{Key, Mapping, Protocol};
use crate::backend::Backend;
use crate::conf;
use crate::error::Error;
use crate::iptables::is_chain;

/// The bit of a packet's mark by which iptables' rules know what to masquerade.
pub(super) const DEFAULT_MARK_BIT: u8 = 13;

/// The keys of a portmap configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conf {
    /// By what rules are made, as the configuration says or as only one of both can; `None` leaves the choice to
    /// podwire.
    pub(crate) backend: Option<Backend>,
    /// Whether what could not be answered otherwise is masqueraded: connections from the container itself, from
    /// its network and from the host's loopback.
    pub(crate) snat: bool,
    /// Whether all connections are.
    pub(crate) masq_all: bool,
    /// The bit of the mark for it (iptables).
    pub(crate) mark_bit: u8,
    /// Somebody else's chain that marks what is to be masqueraded (iptables).
    pub(crate) set_mark_chain: Option<String>,
    /// What packets must be like besides.
    pub(crate) conditions: Conditions,
    /// What is published.
    pub(crate) mappings: Vec<Mapping>,
}

/// What packets must be like to be redirected, for IPv4 and for IPv6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Conditions {
    /// In the words of iptables; none for none.
    Iptables([Vec<String>; 2]),
    /// As those of nft are understood.
    Nftables([Vec<Match>; 2]),
}

impl Conf {
    /// Reads the call's configuration.
    pub(crate) fn parse(call: &Call) -> Result<Self, Error> {
        conf::strictly(call, read)
    }

    /// Reads what can be read: for DEL, which removes what it can.
    pub(crate) fn parse_leniently(call: &Call) -> Self {
        conf::leniently(call, read)
    }
}

/// Reads every key of a portmap configuration, telling problems to `fields`.
pub(crate) fn read(fields: &Fields<'_>) -> Conf {
    let _ = NetConf::dns(fields);
    let mut set_mark_chain = fields.string("externalSetMarkChain");
    if let Some((name, problem)) =
        set_mark_chain.and_then(|name| Some((name, set_mark_chain_problem(name)?)))
    {
        fields.invalid("externalSetMarkChain", format!("{name:?} {problem}"));
        set_mark_chain = None;
    }
    let tokens = [("conditionsV4", true), ("conditionsV6", false)].map(|(key, is_ipv4)| {
        let tokens = fields.strings(key).unwrap_or_default();
        if let Some(wrong) = tokens.iter().find(|it| it.is_empty() || it.contains(char::is_control))
        {
            fields.invalid(key, format!("{wrong:?} is empty or not printable"));
        }
        (key, is_ipv4, tokens)
    });
    let backend = read_backend(fields, set_mark_chain, &tokens);
    let conditions = match tokens.iter().find_map(|(_, _, tokens)| style(tokens)) {
        Some(Backend::Nftables) => Conditions::Nftables(tokens.map(|(key, is_ipv4, tokens)| {
            conditions::parse(&tokens, is_ipv4).unwrap_or_else(|problem| {
                fields.invalid(key, problem);
                Vec::new()
            })
        })),
        _ => Conditions::Iptables(
            tokens.map(|(_, _, tokens)| tokens.into_iter().map(str::to_owned).collect()),
        ),
    };
    Conf {
        backend,
        snat: fields.bool("snat").unwrap_or(true),
        masq_all: fields.bool("masqAll").unwrap_or_default(),
        mark_bit: read_mark_bit(fields, set_mark_chain),
        set_mark_chain: set_mark_chain.map(str::to_owned),
        conditions,
        mappings: read_mappings(fields),
    }
}

/// Why no rule of ours can jump there. A verdict is one that the reference takes too.
fn set_mark_chain_problem(name: &str) -> Option<&'static str> {
    const BUILT_IN: [&str; 4] = ["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"];
    if !is_chain(name) {
        Some("is no name of a chain")
    } else if BUILT_IN.contains(&name) {
        Some("is built into table nat: no rule can jump to it")
    } else if name == HOSTPORTS {
        Some("is the plugin's own")
    } else {
        None
    }
}

fn read_mark_bit(fields: &Fields<'_>, set_mark_chain: Option<&str>) -> u8 {
    let Some(number) = fields.integer("markMasqBit") else { return DEFAULT_MARK_BIT };
    if set_mark_chain.is_some() {
        let text = "cannot be specified together with externalSetMarkChain";
        fields.invalid("markMasqBit", text);
    }
    match u8::try_from(number) {
        Ok(bit @ 0..=31) => bit,
        _ => {
            fields.invalid("markMasqBit", format!("{number} is not from 0 to 31"));
            DEFAULT_MARK_BIT
        }
    }
}

/// Whose language conditions are in: only iptables' begin with a hyphen or an exclamation mark (the reference's
/// rule).
fn style(tokens: &[&str]) -> Option<Backend> {
    let first = tokens.first().filter(|token| !token.is_empty())?;
    Some(if first.starts_with(['-', '!']) { Backend::Iptables } else { Backend::Nftables })
}

/// Reads `backend`. Options that only one of both has decide where it says nothing, and must not be for the
/// other where it does.
fn read_backend(
    fields: &Fields<'_>,
    set_mark_chain: Option<&str>,
    tokens: &[(&'static str, bool, Vec<&str>); 2],
) -> Option<Backend> {
    let mut of_iptables: Vec<&str> =
        set_mark_chain.map(|_| "externalSetMarkChain").into_iter().collect();
    let mut of_nftables = Vec::new();
    for (key, _, tokens) in tokens {
        match style(tokens) {
            Some(Backend::Iptables) => of_iptables.push(key),
            Some(Backend::Nftables) => of_nftables.push(*key),
            None => {}
        }
    }
    let asked = fields.string("backend");
    let backend = asked.and_then(Backend::parse);
    let refuse = |text| fields.invalid("backend", text);
    let mixed = |backend: &str, other: &str, options: &[&str]| {
        format!(
            "{backend} is asked for, but the configuration has options of {other} alone: {}",
            options.join(", ")
        )
    };
    match (asked, backend) {
        (Some(text), None) => refuse(format!("unrecognized backend {text:?}")),
        (_, Some(Backend::Iptables)) if !of_nftables.is_empty() => {
            refuse(mixed("iptables", "nftables", &of_nftables));
        }
        (_, Some(Backend::Nftables)) if !of_iptables.is_empty() => {
            refuse(mixed("nftables", "iptables", &of_iptables));
        }
        (None, _) if !of_iptables.is_empty() && !of_nftables.is_empty() => refuse(format!(
            "no backend has all of these options: {}, {}",
            of_iptables.join(", "),
            of_nftables.join(", ")
        )),
        _ => {}
    }
    match (backend, of_iptables.is_empty(), of_nftables.is_empty()) {
        (None, false, _) => Some(Backend::Iptables),
        (None, true, false) => Some(Backend::Nftables),
        (backend, ..) => backend,
    }
}

fn read_mappings(fields: &Fields<'_>) -> Vec<Mapping> {
    let runtime = fields.object("runtimeConfig");
    let elements = runtime.and_then(|it| it.array("portMappings")).unwrap_or_default();
    let mut mappings: Vec<Mapping> = Vec::new();
    let mut published: BTreeMap<(bool, Key), u16> = BTreeMap::new();
    for element in &elements {
        let Some(mapping) = read_mapping(element) else { continue };
        let keys = [true, false].map(|is_ipv4| Some((is_ipv4, mapping.key(is_ipv4)?)));
        let keys: Vec<(bool, Key)> = keys.into_iter().flatten().collect();
        let of_others = keys.iter().filter_map(|key| published.get(key));
        if let Some(other) = of_others.clone().find(|other| **other != mapping.container_port) {
            element.invalid(format!(
                "host port {}/{} leads to container port {other} already",
                mapping.host_port,
                mapping.protocol.word()
            ));
        // What comes twice is once there.
        } else if of_others.count() < keys.len() {
            published.extend(keys.into_iter().map(|key| (key, mapping.container_port)));
            mappings.push(mapping);
        }
    }
    mappings
}

fn read_mapping(element: &Element<'_>) -> Option<Mapping> {
    let fields = element.object()?;
    let port = |key| {
        let number = fields.integer(key).unwrap_or_default();
        let port = u16::try_from(number).ok().filter(|port| *port > 0);
        if port.is_none() {
            fields.invalid(key, format!("{number} is no port (1 to 65535)"));
        }
        port
    };
    let (host_port, container_port) = (port("hostPort"), port("containerPort"));
    let word = fields.string("protocol").unwrap_or_default();
    let protocol = Protocol::parse(word);
    if protocol.is_none() {
        fields.invalid("protocol", format!("{word:?} is none of tcp, udp and sctp"));
    }
    let has_address = fields.string("hostIP").is_some_and(|text| !text.is_empty());
    let host_ip = fields.address("hostIP");
    let is_readable = host_ip.is_some() == has_address;
    fields.finish();
    Some(Mapping {
        protocol: protocol?,
        host_port: host_port?,
        container_port: container_port?,
        host_ip,
    })
    .filter(|_| is_readable)
}

/// The container's first addresses of IPv4 and of IPv6, with the prefix lengths of their networks. Those that name no
/// interface, or none of the result, are its own (reference behaviour).
pub(crate) fn addresses(result: &AddResult, ifname: &str) -> [Option<IpNetwork>; 2] {
    let is_ours = |index: Option<i64>| {
        let entry = index
            .and_then(|index| usize::try_from(index).ok())
            .and_then(|index| result.interfaces.get(index));
        entry.is_none_or(|entry| entry.name == ifname && !entry.sandbox.is_empty())
    };
    let ours = || result.ips.iter().filter(|ip| is_ours(ip.interface)).map(|ip| ip.address);
    [true, false].map(|is_ipv4| ours().find(|address| address.is_ipv4() == is_ipv4))
}

/// The addresses alone.
pub(crate) fn bare(addresses: &[Option<IpNetwork>; 2]) -> Vec<IpAddr> {
    addresses.iter().flatten().map(|it| it.ip()).collect()
}

#[cfg(test)]
mod tests;
