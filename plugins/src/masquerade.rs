//! Masquerading of a container's outbound traffic, in the reference plugins' layouts, so that either
//! suite removes what the other made (reference: `pkg/ip/ipmasq_iptables_linux.go` and
//! `ipmasq_nftables_linux.go`).

mod iptables;
mod kernel_tables;
mod lock;
mod nftables;

use cni::{Attachment, Call};
use ipnetwork::IpNetwork;
use ruleset::networks::{MULTICAST_V4, MULTICAST_V6};
use runner::OsRunner;
use sha2::{Digest, Sha512};

use crate::error::Error;
use crate::nf_tables::missing;
use crate::rollback::Rollback;
use crate::veth;

pub(crate) use kernel_tables::KernelTables;
pub(crate) use nftables::Mark;

/// The nat table's chain that leads to those of the attachments.
const HOOK_CHAIN: &str = "POSTROUTING";
/// What the names of the attachments' chains begin with.
const CHAIN_PREFIX: &str = "CNI-";

/// What errors call masquerading without iptables.
const BY_NFTABLES: &str = "ipMasq by nftables";

/// How masquerading is programmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// iptables, by `iptables-restore`.
    Iptables,
    /// nf_tables, without a program.
    Nftables,
}

impl Backend {
    /// Reads `ipMasqBackend`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "iptables" => Some(Self::Iptables),
            "nftables" => Some(Self::Nftables),
            _ => None,
        }
    }
}

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

/// The first bytes of a text's SHA-512, as hexadecimal digits.
pub(crate) fn hex(text: &str, bytes: usize) -> String {
    Sha512::digest(text).iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
}

fn mark_of(call: &Call) -> Mark {
    Mark::new(&call.conf.name, &call.container_id, &call.ifname)
}

/// What a configuration is served by. Where it leaves the choice to podwire and the kernel cannot be asked, its
/// refusal of the rules will tell more.
fn chosen(backend: Option<Backend>, kernel: &mut KernelTables) -> Backend {
    backend.unwrap_or_else(|| kernel.backend().unwrap_or(Backend::Nftables))
}

/// Whether an ADD that masquerades could succeed.
pub(crate) fn available(backend: Option<Backend>) -> Result<(), Error> {
    let mut kernel = KernelTables::default();
    match chosen(backend, &mut kernel) {
        Backend::Iptables => iptables::available(),
        Backend::Nftables => {
            let client = kernel.client().map_err(|error| Error::NotAvailable(error.to_string()))?;
            client.map(drop).ok_or_else(|| missing(BY_NFTABLES))
        }
    }
}

/// Masquerades what comes from an attachment's addresses, until a failed ADD is undone.
pub(crate) fn set_up_or_undo(
    call: &Call,
    backend: Option<Backend>,
    addresses: Vec<IpNetwork>,
    rollback: &mut Rollback<'_>,
) -> Result<(), Error> {
    let mut kernel = KernelTables::default();
    if chosen(backend, &mut kernel) == Backend::Nftables {
        let mark = mark_of(call);
        let client = kernel.client()?.ok_or_else(|| missing(BY_NFTABLES))?;
        nftables::set_up(client, &mark, &addresses)?;
        rollback.push("remove the masquerading", move || kernel.remove_marked(&mark));
        return Ok(());
    }
    let identity = Identity::of(call);
    let undo = {
        let (identity, addresses) = (identity.clone(), addresses.clone());
        move || tear_down_of(&identity, Which::Only(&addresses), &mut KernelTables::default())
    };
    let result = iptables::set_up(&mut OsRunner, &identity, &addresses);
    // Without the lock nothing was made, and waiting for it once more would not help.
    if !matches!(result, Err(Error::Lock(_))) {
        rollback.push("remove the masquerading", undo);
    }
    result
}

/// Where the programs must look for rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Places {
    /// nf_tables.
    nftables: bool,
    /// The tables that iptables used before.
    legacy: bool,
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
    errors.extend(kernel.remove_marked(&mark_of(call)).err());
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
            others = veth::addresses_of_others(call)?;
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
    let mut look_in = |family| kernel.remove(family, chain, which);
    iptables::tear_down(&mut OsRunner, chain, which, &mut look_in)
}

/// Removes the rules of the call's network that are for none of the attachments in `valid`.
pub(crate) fn collect_garbage(call: &Call, valid: &[Attachment]) -> Result<(), Error> {
    let network = &call.conf.name;
    // Attachments of one container share their chain, so one that is valid keeps it.
    let chains: Vec<String> =
        valid.iter().map(|it| Identity::new(network, &it.container_id).chain).collect();
    let marks: Vec<Mark> =
        valid.iter().map(|it| Mark::new(network, &it.container_id, &it.ifname)).collect();
    let mut kernel = KernelTables::default();
    let mut errors = Vec::new();
    errors.extend(kernel.collect_garbage(network, &marks).err());
    let mut look_in = |family| kernel.places(family);
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

/// The programs of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Programs {
    restore: &'static str,
    save: &'static str,
}

/// A protocol family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Family {
    /// Those that the node uses, for whichever tables.
    programs: Programs,
    /// Those that are for the tables of old whatever the node uses, where it has them.
    legacy_programs: Programs,
    multicast: IpNetwork,
    is_ipv4: bool,
}

const FAMILIES: [Family; 2] = [
    Family {
        programs: Programs { restore: "iptables-restore", save: "iptables-save" },
        legacy_programs: Programs {
            restore: "iptables-legacy-restore",
            save: "iptables-legacy-save",
        },
        multicast: MULTICAST_V4,
        is_ipv4: true,
    },
    Family {
        programs: Programs { restore: "ip6tables-restore", save: "ip6tables-save" },
        legacy_programs: Programs {
            restore: "ip6tables-legacy-restore",
            save: "ip6tables-legacy-save",
        },
        multicast: MULTICAST_V6,
        is_ipv4: false,
    },
];

/// The rules of an attachment's chain, and those that lead there, in the words of `iptables-save`,
/// so that they can be compared with what it prints.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rules {
    /// Traffic within the network stays as it is.
    accept: Vec<String>,
    /// All other is masqueraded, but for multicast.
    masquerade: String,
    /// From the hook to the chain, one per address.
    jumps: Vec<String>,
}

impl Rules {
    fn new(family: Family, identity: &Identity, addresses: &[IpNetwork]) -> Self {
        let chain = &identity.chain;
        let comment = quoted_comment(identity);
        let networks = addresses.iter().map(|cidr| format!("{}/{}", cidr.network(), cidr.prefix()));
        let mut accept: Vec<String> = networks
            .map(|network| format!("{chain} -d {network} -m comment --comment {comment} -j ACCEPT"))
            .collect();
        // Two addresses of one network need one rule.
        accept.dedup();
        let full = if family.is_ipv4 { 32 } else { 128 };
        let jump = |cidr: &IpNetwork| {
            let address = cidr.ip();
            format!("{HOOK_CHAIN} -s {address}/{full} -m comment --comment {comment} -j {chain}")
        };
        Self {
            accept,
            masquerade: format!(
                "{chain} ! -d {} -m comment --comment {comment} -j MASQUERADE",
                family.multicast
            ),
            jumps: addresses.iter().map(jump).collect(),
        }
    }
}

/// The comment as `iptables-save` quotes it. Neither a network's name nor a container's id can
/// have quotes or backslashes.
fn quoted_comment(identity: &Identity) -> String {
    format!("\"{}\"", identity.comment.replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(rules.accept, [format!("{chain} -d 10.1.0.0/24 {comment} -j ACCEPT")]);
        assert_eq!(rules.masquerade, format!("{chain} ! -d 224.0.0.0/4 {comment} -j MASQUERADE"));
        assert_eq!(
            rules.jumps,
            [
                format!("POSTROUTING -s 10.1.0.2/32 {comment} -j {chain}"),
                format!("POSTROUTING -s 10.1.0.3/32 {comment} -j {chain}"),
            ]
        );
    }
}
