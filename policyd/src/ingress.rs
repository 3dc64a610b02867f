//! Whose address a packet has, looked at as soon as a pod's interface receives it. Table raw looks at all
//! that comes in; but by then the kernel has put fragments together, by addresses and a number alone
//! (`nf_defrag_ipv4`), and has answered options of IPv6 that it cannot take, with all that it was sent
//! (`ip6_parse_tlv`): to whoever seemed to have sent it. So where the kernel has nf_tables for interfaces, each pod's
//! has a chain of its own ahead of all that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink::Error;
use netlink::nftables::{Change, Client, HeldChain, HeldRule};
use nix::errno::Errno;
use ruleset::iptables::Side;
use ruleset::networks::{LINK_LOCAL_V6, UNSPECIFIED_V6};
use ruleset::nft::{Base, Chain, Family, Hook, Kind, Match, Policy, Rule, Table, Verdict};

use crate::iptables::discovery;
use crate::nftables::{drop_counted, goto, known_again};
use crate::plan::Endpoint;

/// The name of the table, of the family `netdev`.
pub const TABLE: &str = "podwire-sources";
const NETDEV: Table<'_> = Table { family: Family::Netdev, name: TABLE };
/// Behind what closes interfaces (-500), and ahead of others.
const PRIORITY: i32 = -400;
/// Where packets of others end. No interface has a slash in its name.
const FORGED: &str = "forged/";
/// Where fragments of ICMP, and of ICMPv6, go. No host sends an error in fragments (RFC 1812, section 4.3.2.3;
/// RFC 4443, section 2.4), nor a message of discovery (RFC 6980). What is put together from some is taken apart
/// again when it leaves, and then the kernel would fill in a checksum wherever its sender has asked it to
/// (`skb_checksum_help`): what is let pass without asking policies would come as something else.
const FRAGMENTS: &str = "fragments/";
const FRAGMENTS_OF_V6: &str = "fragments6/";
const ICMP: u8 = 1;
/// The types that are let pass for the flow that they tell of (`nf_conntrack_icmpv4_error`).
const ERRORS: [u8; 5] = [3, 4, 5, 11, 12];
/// The same of ICMPv6 (`nf_conntrack_icmpv6_error`).
const ERRORS_OF_V6: [u8; 4] = [1, 2, 3, 4];
/// Numbers of what is next in a packet of IPv6, which its seventh byte tells.
const HOP_BY_HOP: u8 = 0;
const ICMPV6: u8 = 58;
/// All the options that reports of listeners have: that routers are to look at them (RFC 3810, section 5), and
/// padding behind that, as Linux has it (`igmp6_mc_hdr`), or ahead of it. The kernel answers others.
const ROUTER_ALERT: [[u8; 8]; 2] = [[ICMPV6, 0, 5, 2, 0, 0, 1, 0], [ICMPV6, 0, 1, 0, 5, 2, 0, 0]];

/// Interfaces, with the addresses that packets may have which come by them.
pub type Sources = BTreeMap<String, BTreeSet<IpAddr>>;

/// Of each chain that has rules their comments.
pub(crate) type Comments = BTreeMap<String, Vec<Option<String>>>;

/// The table that the kernel holds.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    /// Whether its rules are in force.
    pub(crate) is_awake: bool,
    pub(crate) comments: Comments,
}

/// Those of these endpoints.
pub(crate) fn sources<'a>(endpoints: impl Iterator<Item = &'a Endpoint>) -> Sources {
    let mut sources = Sources::new();
    for endpoint in endpoints {
        if let Some(interface) = &endpoint.interface {
            sources.entry(interface.name.clone()).or_default().extend(&endpoint.addresses);
        }
    }
    sources
}

/// The rules of an interface. What has a link-local address, or none, may be IPv6's discovery, of listeners
/// behind an option, and never in fragments (RFC 6980): table raw looks at the rest of it.
fn rules(addresses: &BTreeSet<IpAddr>) -> Vec<Rule> {
    let from = |network| Match::Address(Side::Source, network);
    let bytes = |place, value: &[u8]| Match::HeaderBytes { place, value: value.to_owned() };
    let own = addresses.iter().flat_map(|it| {
        let own = || from(IpNetwork::from(*it));
        let (fragment, chain) = if it.is_ipv4() {
            ([own(), Match::Protocol(ICMP), Match::Fragment], FRAGMENTS)
        } else {
            ([own(), Match::Protocol(ICMPV6), Match::FragmentHeader], FRAGMENTS_OF_V6)
        };
        [Rule::new(fragment, Verdict::Jump(chain.to_owned())), Rule::new([own()], Verdict::Return)]
    });
    let next = |number| bytes(6, &[number]);
    let discovery = [LINK_LOCAL_V6, UNSPECIFIED_V6].into_iter().flat_map(|network| {
        let behind = |options: &[u8; 8]| vec![from(network), next(HOP_BY_HOP), bytes(40, options)];
        let matches = [vec![from(network), next(ICMPV6)]].into_iter();
        matches
            .chain(ROUTER_ALERT.iter().map(behind))
            .map(|it| Rule::new(it, Verdict::Return))
            .collect::<Vec<_>>()
    });
    // The outer one of several tags of VLAN 0 is off by now, and the kernel takes off the others later.
    let rest = [Rule::new([Match::Arp], Verdict::Return), goto([], FORGED)];
    own.chain(discovery).chain(rest).map(|it| known_again(it, None)).collect()
}

fn comments(rules: &[Rule]) -> Vec<Option<String>> {
    rules.iter().map(|it| it.comment.clone()).collect()
}

/// The chains that those of interfaces lead to, and their rules.
fn ends() -> [(&'static str, Vec<Rule>); 3] {
    let forged = |kind| known_again(goto([Match::FirstByte(kind)], FORGED), None);
    [
        (FORGED, vec![known_again(drop_counted([]), None)]),
        (FRAGMENTS, ERRORS.into_iter().map(forged).collect()),
        (FRAGMENTS_OF_V6, ERRORS_OF_V6.into_iter().chain(discovery::types()).map(forged).collect()),
    ]
}

/// The chains that these interfaces need and that are held otherwise, with the rules that they should have:
/// first those that others lead to.
pub(crate) fn differing(sources: &Sources, held: &Comments) -> Vec<(String, Vec<Rule>)> {
    let ends = ends().into_iter().map(|(name, rules)| (name.to_owned(), rules));
    let of_interfaces = sources.iter().map(|(it, addresses)| (it.clone(), rules(addresses)));
    let differs = |(chain, rules): &(String, Vec<_>)| held.get(chain) != Some(&comments(rules));
    ends.chain(of_interfaces).filter(differs).collect()
}

/// Has these interfaces pass packets from these addresses alone; others stay as they are. When something was
/// written, the netlink port from which the kernel tells that it came.
///
/// # Errors
/// [`Error`].
pub(crate) fn bind(sources: &Sources) -> Result<Option<u32>, Error> {
    if sources.is_empty() {
        return Ok(None);
    }
    let Some(mut client) = Client::open()? else { return Ok(None) };
    put_all(&mut client, sources)
}

fn put_all(client: &mut Client, sources: &Sources) -> Result<Option<u32>, Error> {
    let mut is_written = false;
    for (interface, addresses) in sources {
        is_written |= match put(client, interface, &rules(addresses)) {
            // Or somebody has made something else of the table: `see_to` looks for that.
            Err(error) if error.is_unsupported() => false,
            done => done?,
        };
    }
    if is_written { client.port().map(Some) } else { Ok(None) }
}

/// The same, and undoes whatever others did to the table; of other interfaces those are let go that `is_known`
/// does not say it of.
///
/// # Errors
/// [`Error`].
pub(crate) fn see_to(
    sources: &Sources,
    is_known: impl Fn(&str) -> bool,
) -> Result<Option<u32>, Error> {
    let Some(mut client) = Client::open()? else { return Ok(None) };
    let Some(held) = client.table(NETDEV)? else { return put_all(&mut client, sources) };
    // Another release, or somebody else, has chains of these names called from elsewhere, or from others.
    let elsewhere = held.chains.iter().find(|it| is_called_elsewhere(it, sources));
    let why = match elsewhere {
        _ if !held.is_awake => "it is dormant: its rules are not in force".to_owned(),
        Some(chain) => format!("chain {:?} is called elsewhere: {:?}", chain.name, chain.place()),
        None => match repair(&mut client, &held.chains, sources, is_known) {
            Ok(true) => return client.port().map(Some),
            Ok(false) => return Ok(None),
            Err(error) if is_of_another_kind(&error) => crate::chain(&error),
            Err(error) => return Err(error),
        },
    };
    tracing::warn!(why, "table {TABLE} is made anew");
    client.remove(NETDEV)?;
    put_all(&mut client, sources)
}

/// Whether it has the name of one of ours, and the kernel calls it where that is not to be. Kernels such as 6.1
/// would take it for the wanted one: of chains of this family they compare no priority (`nf_tables_updchain`).
fn is_called_elsewhere(held: &HeldChain, sources: &Sources) -> bool {
    let name = &*held.name;
    let base = sources.contains_key(name).then(|| base(name));
    let is_ours = base.is_some() || is_end(name);
    is_ours && !held.is_like(&Chain { name, base, comment: None })
}

/// Whether what is there can only be removed.
fn is_of_another_kind(error: &Error) -> bool {
    let others = [Errno::EEXIST, Errno::EBUSY, Errno::EINVAL, Errno::ENOENT];
    error.is_unsupported() || error.errno().is_some_and(|it| others.contains(&it))
}

/// Whether anything was to be done.
fn repair(
    client: &mut Client,
    chains: &[HeldChain],
    sources: &Sources,
    is_known: impl Fn(&str) -> bool,
) -> Result<bool, Error> {
    let held = comments_of(client)?;
    let mut is_written = false;
    for (name, rules) in differing(sources, &held) {
        is_written |= if sources.contains_key(&name) {
            put(client, &name, &rules)?
        } else {
            let end = Chain { name: &name, base: None, comment: None };
            client.change(NETDEV, &filled(&end, &rules))?;
            true
        };
    }
    let is_left = |it: &&str| !is_end(it) && !sources.contains_key(*it) && !is_known(it);
    for chain in chains.iter().map(|it| &*it.name).filter(is_left) {
        match client.change(NETDEV, &[Change::Empty(chain), Change::DeleteChain(chain)]) {
            // It went with its interface.
            Err(error) if error.errno() == Some(Errno::ENOENT) => {}
            done => done?,
        }
        is_written = true;
    }
    Ok(is_written)
}

fn is_end(chain: &str) -> bool {
    [FORGED, FRAGMENTS, FRAGMENTS_OF_V6].contains(&chain)
}

/// Where the kernel calls the chain of an interface.
const fn base(interface: &str) -> Base<'_> {
    let hook = Hook::Ingress(interface);
    Base { kind: Kind::Filter, hook, priority: PRIORITY, policy: Policy::Accept }
}

/// Writes the chain of an interface, and the table where there is none. Whether it did: not where there is no
/// such interface.
fn put(client: &mut Client, interface: &str, rules: &[Rule]) -> Result<bool, Error> {
    let chain = Chain { name: interface, base: Some(base(interface)), comment: None };
    let is_missing = |it: &Error| it.errno() == Some(Errno::ENOENT);
    match client.change(NETDEV, &filled(&chain, rules)) {
        Err(error) if is_missing(&error) => {}
        done => return done.map(|()| true),
    }
    let ends = ends();
    let chains = ends.each_ref().map(|(name, _)| Chain { name, base: None, comment: None });
    let mut whole = vec![Change::Table(None)];
    for (end, (_, rules)) in chains.iter().zip(&ends) {
        whole.extend(filled(end, rules));
    }
    whole.extend(filled(&chain, rules));
    match client.change(NETDEV, &whole) {
        Err(error) if is_missing(&error) => Ok(false),
        done => done.map(|()| true),
    }
}

/// What makes a chain, if there is none, and has it be of these rules alone.
fn filled<'a>(chain: &'a Chain<'a>, rules: &'a [Rule]) -> Vec<Change<'a>> {
    let rules = rules.iter().map(|rule| Change::Rule(chain.name, rule));
    [Change::Chain(chain), Change::Empty(chain.name)].into_iter().chain(rules).collect()
}

/// What the kernel holds; `None`: there is no table.
///
/// # Errors
/// [`Error`].
pub(crate) fn held() -> Result<Option<Held>, Error> {
    let Some(mut client) = Client::open()? else { return Ok(None) };
    let Some(table) = client.table(NETDEV)? else { return Ok(None) };
    Ok(Some(Held { is_awake: table.is_awake, comments: comments_of(&mut client)? }))
}

fn comments_of(client: &mut Client) -> Result<Comments, Error> {
    let rules = client.all_rules(NETDEV)?.into_iter();
    let comments = |it: Vec<HeldRule>| it.into_iter().map(|it| it.comment).collect();
    Ok(rules.map(|(chain, rules)| (chain, comments(rules))).collect())
}

/// How many packets were dropped that others' addresses had, since the table was made.
///
/// # Errors
/// [`Error`].
pub(crate) fn packets() -> Result<u64, Error> {
    let Some(mut client) = Client::open()? else { return Ok(0) };
    if !client.has_table(NETDEV)? {
        return Ok(0);
    }
    let rules = client.rules(NETDEV, FORGED)?;
    Ok(rules.iter().filter_map(|it| it.packets).sum())
}

/// Removes the table.
///
/// # Errors
/// [`Error`].
pub fn remove() -> Result<(), Error> {
    let Some(mut client) = Client::open()? else { return Ok(()) };
    client.remove(NETDEV)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_passes_its_own_addresses_and_those_of_discovery() {
        let addresses = ["10.1.0.2", "fd00:1::2"].map(|it| it.parse().unwrap()).into();
        let printed: Vec<_> = rules(&addresses)
            .iter()
            .map(|it| it.to_string().split(" comment").next().unwrap().to_owned())
            .collect();
        assert_eq!(
            printed,
            [
                "ip saddr 10.1.0.2 meta l4proto icmp ip frag-off & 16383 != 0 jump fragments/",
                "ip saddr 10.1.0.2 return",
                "ip6 saddr fd00:1::2 meta l4proto ipv6-icmp exthdr frag exists jump fragments6/",
                "ip6 saddr fd00:1::2 return",
                "ip6 saddr fe80::/10 @nh,48,8 0x3a return",
                "ip6 saddr fe80::/10 @nh,48,8 0x0 @nh,320,64 0x3a00050200000100 return",
                "ip6 saddr fe80::/10 @nh,48,8 0x0 @nh,320,64 0x3a00010005020000 return",
                "ip6 saddr :: @nh,48,8 0x3a return",
                "ip6 saddr :: @nh,48,8 0x0 @nh,320,64 0x3a00050200000100 return",
                "ip6 saddr :: @nh,48,8 0x0 @nh,320,64 0x3a00010005020000 return",
                "meta protocol arp return",
                "goto forged/",
            ]
        );
    }
}
