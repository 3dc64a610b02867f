//! Masquerading of a container's outbound traffic, in the reference plugins' layouts, so that either
//! suite removes what the other made (reference: `pkg/ip/ipmasq_iptables_linux.go` and
//! `ipmasq_nftables_linux.go`).

mod iptables;
mod nftables;

use std::net::IpAddr;

use cni::{Attachment, Call};
use ipnetwork::IpNetwork;
use ruleset::iptables::{Match, Side, Target};
use ruleset::networks::{self, MULTICAST_V4, MULTICAST_V6};
use runner::OsRunner;

use crate::backend::Backend;
use crate::error::Error;
use crate::iptables::{Addition, Family, InChain, NAT};
use crate::kernel_tables::{KernelTables, Signs};
use crate::names::hex;
use crate::nf_tables::missing;
use crate::owner::{Owner, Stale};
use crate::rollback::Rollback;
use crate::veth;

/// The nat table's chain that leads to those of the attachments.
const HOOK_CHAIN: &str = "POSTROUTING";
/// What the names of the attachments' chains begin with.
const CHAIN_PREFIX: &str = "CNI-";

/// What errors call masquerading, and that without iptables.
const WHAT: &str = "ipMasq";
const BY_NFTABLES: &str = "ipMasq by nftables";

/// By what attachments are masqueraded already.
const SIGNS: Signs<'_> =
    Signs { nftables: &[(nftables::TABLE, nftables::CHECKS.name)], iptables: &[CHAIN_PREFIX] };

/// What tells an attachment's rules from all others: chain and comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// `CNI-` and 24 hexadecimal digits of the SHA-512 of network and container id. Attachments of
    /// one container to one network share it.
    pub(crate) chain: String,
    /// `name: "NETWORK" id: "CONTAINER"`.
    pub(crate) comment: String,
}

impl Identity {
    /// Of the call's attachment.
    pub(crate) fn of(call: &Call) -> Self {
        Self::new(&call.conf.name, &call.container_id)
    }

    /// Of a container in a network.
    pub(crate) fn new(network: &str, container_id: &str) -> Self {
        Self {
            chain: format!("{CHAIN_PREFIX}{}", hex(&format!("{network}{container_id}"), 12)),
            comment: format!("name: \"{network}\" id: \"{container_id}\""),
        }
    }
}

/// Whether an ADD that masquerades could succeed.
pub(crate) fn available(backend: Option<Backend>) -> Result<(), Error> {
    Backend::available(backend, SIGNS, WHAT)
}

/// Masquerades what comes from an attachment's addresses, until a failed ADD is undone.
pub(crate) fn set_up_or_undo(
    call: &Call,
    backend: Option<Backend>,
    addresses: Vec<IpNetwork>,
    rollback: &mut Rollback<'_>,
) -> Result<(), Error> {
    let mut kernel = KernelTables::default();
    if Backend::chosen(backend, &mut kernel, SIGNS) == Backend::Nftables {
        let owner = Owner::of(call);
        let client = kernel.client()?.ok_or_else(|| missing(BY_NFTABLES))?;
        nftables::set_up(client, &owner, &addresses)?;
        rollback.push("remove the masquerading", move || {
            let client = kernel.client()?;
            client.map_or(Ok(()), |client| nftables::tear_down(client, &owner))
        });
        return Ok(());
    }
    let identity = Identity::of(call);
    let undo = {
        let (identity, addresses) = (identity.clone(), addresses.clone());
        move || tear_down_of(&identity, Which::Only(&addresses), &mut KernelTables::default())
    };
    let result = iptables::set_up(&mut OsRunner, &mut kernel, &identity, &addresses);
    // Without the lock nothing was made, and waiting for it once more would not help.
    if !matches!(result, Err(Error::Lock(_))) {
        rollback.push("remove the masquerading", undo);
    }
    result
}

/// Which of a chain's jumps to remove. Attachments of one container to one network share a chain.
#[derive(Debug, Clone, Copy)]
enum Which<'a> {
    /// Those from these addresses.
    Only(&'a [IpNetwork]),
    /// All but those from these addresses.
    AllBut(&'a [IpNetwork]),
}

impl Which<'_> {
    /// Whether a jump is one of them that is for packets from `source`.
    fn includes(self, source: Option<IpNetwork>) -> bool {
        match self {
            Self::Only(addresses) => source.is_some_and(|source| is_of(source, addresses)),
            Self::AllBut(addresses) => !source.is_some_and(|source| is_of(source, addresses)),
        }
    }
}

/// Whether a rule for `source` is for one of the addresses: alone, or with its network as old
/// releases made it.
fn is_of(source: IpNetwork, addresses: &[IpNetwork]) -> bool {
    let is_full = source.prefix() == if source.is_ipv4() { 32 } else { 128 };
    addresses.iter().any(|address| {
        let is_network = source.prefix() == address.prefix() && source.ip() == address.network();
        is_network || (is_full && source.ip() == address.ip())
    })
}

/// Removes the masquerading of a DEL's attachment by both backends: the configuration may have named the
/// other at its ADD.
pub(crate) fn tear_down(call: &Call, kernel: &mut KernelTables) -> Result<(), Error> {
    let mut errors = Vec::new();
    errors.extend(tear_down_iptables(call, kernel).err());
    let by_nftables = kernel.client().map_err(Error::from).and_then(|client| {
        client.map_or(Ok(()), |client| nftables::tear_down(client, &Owner::of(call)))
    });
    errors.extend(by_nftables.err());
    Error::of_teardown(errors)
}

/// Where no result of ADD tells which rules are its own, they are those of no address that another
/// interface of the container has.
fn tear_down_iptables(call: &Call, kernel: &mut KernelTables) -> Result<(), Error> {
    let others;
    let own = attachment_addresses(call);
    let which = match &own {
        Some(own) => Which::Only(own),
        None => {
            others = veth::addresses_of_others(call, true)?;
            Which::AllBut(&others)
        }
    };
    tear_down_of(&Identity::of(call), which, kernel)
}

fn tear_down_of(
    identity: &Identity,
    which: Which<'_>,
    kernel: &mut KernelTables,
) -> Result<(), Error> {
    let chain = &identity.chain;
    let mut look_in =
        |family| kernel.remove(family, HOOK_CHAIN, chain, |jump| which.includes(jump.source));
    iptables::tear_down(&mut OsRunner, chain, which, &mut look_in)
}

/// Removes the rules of the call's network that are for none of the attachments in `valid`.
pub(crate) fn collect_garbage(call: &Call, valid: &[Attachment]) -> Result<(), Error> {
    let network = &call.conf.name;
    // Attachments of one container share their chain, so one that is valid keeps it.
    let chains: Vec<String> =
        valid.iter().map(|it| Identity::new(network, &it.container_id).chain).collect();
    let stale = Stale::new(network, valid);
    let mut kernel = KernelTables::default();
    let mut errors = Vec::new();
    let by_nftables = kernel.client().map_err(Error::from).and_then(|client| {
        client.map_or(Ok(()), |client| nftables::collect_garbage(client, &stale))
    });
    errors.extend(by_nftables.err());
    let mut look_in = |family| kernel.places(family, NAT, HOOK_CHAIN);
    errors.extend(iptables::collect_garbage(&mut OsRunner, network, &chains, &mut look_in).err());
    Error::of_teardown(errors)
}

/// The addresses that ADD gave to the call's interface; `None` when that is not known.
fn attachment_addresses(call: &Call) -> Option<Vec<IpNetwork>> {
    let result = call.conf.prev_result().ok()??;
    let is_ours = |index: Option<i64>| match index.and_then(|index| usize::try_from(index).ok()) {
        Some(index) => result.interfaces.get(index).is_some_and(|entry| entry.name == call.ifname),
        None => true,
    };
    let ours = result.ips.iter().filter(|ip| is_ours(ip.interface));
    let addresses: Vec<IpNetwork> = ours.map(|ip| ip.address).collect();
    (!addresses.is_empty()).then_some(addresses)
}

/// The rules of an attachment's chain, and those that lead there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rules {
    chain: String,
    /// Traffic within the network stays as it is.
    accept: Vec<InChain>,
    /// All other is masqueraded, but for multicast.
    masquerade: InChain,
    /// From the hook to the chain, one per address.
    jumps: Vec<InChain>,
}

impl Rules {
    fn new(family: Family, identity: &Identity, addresses: &[IpNetwork]) -> Self {
        let chain = &identity.chain;
        let rule = |chain: &str, it, target| {
            InChain::new(chain, [it, Match::Comment(identity.comment.clone())], target)
        };
        let networks = addresses.iter().filter_map(|it| networks::around(it.ip(), it.prefix()));
        let to = |network| Match::Address(Side::Destination, network);
        let mut accept: Vec<InChain> =
            networks.map(|it| rule(chain, to(it), Target::Accept)).collect();
        // Two addresses of one network need one rule.
        accept.dedup();
        let from = |address: IpAddr| Match::Address(Side::Source, address.into());
        let jump = |it: &IpNetwork| rule(HOOK_CHAIN, from(it.ip()), Target::Jump(chain.clone()));
        let elsewhere = Match::NotAddress(Side::Destination, multicast(family));
        let masquerade = Target::Masquerade { random_fully: false, to_ports: None };
        Self {
            chain: chain.clone(),
            accept,
            masquerade: rule(chain, elsewhere, masquerade),
            jumps: addresses.iter().map(jump).collect(),
        }
    }

    /// What is added for an attachment of a container that has nothing yet.
    fn addition(&self) -> Addition<'_> {
        let own = self.accept.iter().chain([&self.masquerade]).chain(&self.jumps);
        Addition { shared: Vec::new(), chain: &self.chain, is_new: true, own: own.collect() }
    }
}

/// The groups of a family, to which nothing is masqueraded.
const fn multicast(family: Family) -> IpNetwork {
    if family.is_ipv4 { MULTICAST_V4 } else { MULTICAST_V6 }
}

/// The comment as `iptables-save` quotes it. Neither a network's name nor a container's id can
/// have quotes or backslashes.
fn quoted_comment(identity: &Identity) -> String {
    format!("\"{}\"", identity.comment.replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iptables::FAMILIES;

    #[test]
    fn chains_have_the_names_that_the_reference_gives_them() {
        for (network, container_id, chain) in [
            ("n1", "cid1", "CNI-ca7a875c2b85fc44a855128b"),
            ("test", "1234", "CNI-2bbe0c48b91a7d1b8a6753a8"),
            ("testalongnamethatdoesnotmakesense", "1234", "CNI-374f33fe84ab0ed84dcdebe3"),
        ] {
            assert_eq!(Identity::new(network, container_id).chain, chain);
        }
    }

    #[test]
    fn rules_are_in_the_words_of_iptables_save() {
        let identity = Identity::new("n1", "cid1");
        let addresses = ["10.1.0.2/24".parse().unwrap(), "10.1.0.3/24".parse().unwrap()];
        let rules = Rules::new(FAMILIES[0], &identity, &addresses);
        let comment = r#"-m comment --comment "name: \"n1\" id: \"cid1\"""#;
        let chain = "CNI-ca7a875c2b85fc44a855128b";
        let texts = |rules: &[InChain]| rules.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(&rules.accept), [format!("{chain} -d 10.1.0.0/24 {comment} -j ACCEPT")]);
        let masquerade = format!("{chain} ! -d 224.0.0.0/4 {comment} -j MASQUERADE");
        assert_eq!(rules.masquerade.to_string(), masquerade);
        assert_eq!(
            texts(&rules.jumps),
            [
                format!("POSTROUTING -s 10.1.0.2/32 {comment} -j {chain}"),
                format!("POSTROUTING -s 10.1.0.3/32 {comment} -j {chain}"),
            ]
        );
    }
}
