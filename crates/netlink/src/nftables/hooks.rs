//! What the kernel calls at its hooks (`include/uapi/linux/netfilter/nfnetlink_hook.h`), since Linux 5.14: the one way to
//! find a hook's chains without a list of all chains, of which a service proxy has tens of thousands.

use std::collections::BTreeSet;

use netlink_packet_core::NLM_F_DUMP;
use nix::errno::Errno;
use ruleset::nft::{Family, Hook, Table};

use super::meanwhile::Extent;
use super::{Called, Client, message};
use crate::Error;
use crate::attributes::{find, network_number, text};
use crate::netfilter::message::{INET, IPV4, IPV6, Message, NETDEV};

const SUBSYSTEM: u8 = 12;
const GET_HOOKS: [u8; 2] = [SUBSYSTEM, 0];
const HOOK_NUMBER: u16 = 1;
const HOOK_INTERFACE: u16 = 3;
const HOOK_CHAIN: u16 = 6;
const CHAIN_DESCRIPTION: u16 = 1;
const CHAIN_KIND: u16 = 2;
/// `NFNL_HOOK_TYPE_NFTABLES`.
const OF_NFTABLES: u32 = 1;
const TABLE: u16 = 1;
const FAMILY: u16 = 2;
const NAME: u16 = 3;

/// What IP has hooks for: chains of the family inet are told of for both.
const PROTOCOLS: [u8; 2] = [IPV4, IPV6];

/// A base chain of nf_tables.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    family: Family,
    table: String,
    chain: String,
}

/// Asks for what is called at a hook of a protocol.
fn list(protocol: u8, hook: Hook<'_>) -> Message {
    let message = Message::new(GET_HOOKS, NLM_F_DUMP, protocol, 0);
    let message = message.attribute(HOOK_NUMBER, &hook.number().to_be_bytes());
    hook.interface().into_iter().fold(message, |message, it| message.text(HOOK_INTERFACE, it))
}

/// The base chain that is called, if it is one of IP or of single interfaces.
fn read(called: &[u8]) -> Option<Place> {
    let chain = find(called, HOOK_CHAIN)?;
    find(chain, CHAIN_KIND).and_then(network_number).filter(|kind| *kind == OF_NFTABLES)?;
    let description = find(chain, CHAIN_DESCRIPTION)?;
    let family = match *find(description, FAMILY)?.first()? {
        IPV4 => Family::Ip,
        IPV6 => Family::Ip6,
        INET => Family::Inet,
        NETDEV => Family::Netdev,
        _ => return None,
    };
    let name = |kind| find(description, kind).map(text);
    Some(Place { family, table: name(TABLE)?, chain: name(NAME)? })
}

impl Client {
    /// The chains that the kernel calls at a hook of IP to let packets pass or not. Those of a dormant table may be among
    /// them.
    ///
    /// # Errors
    /// [`Error`], also without `CAP_NET_ADMIN`.
    pub fn filters(&mut self, hook: Hook<'_>) -> Result<Vec<Called>, Error> {
        let what = format!("list the chains of nf_tables at hook {hook}");
        let Some(places) = self.places(hook, &what)? else { return self.listed(hook, &what) };
        let mut called = Vec::new();
        for Place { family, table, chain } in places {
            let of = Table { family, name: &table };
            let found = self.get(Message::get_chain(of, &chain), &what)?;
            // One that has gone since is no more called.
            let held = found.and_then(|found| message::read_chain(&found, of));
            let held = held.filter(|it| it.filters_at(hook));
            called.extend(held.map(|chain| Called { family, table, chain }));
        }
        Ok(called)
    }

    /// The names of a table's chains that the kernel calls for what an interface receives; none where nothing has the
    /// interface's name.
    ///
    /// # Errors
    /// [`Error`], also without `CAP_NET_ADMIN`.
    pub fn receiving(
        &mut self,
        table: Table<'_>,
        interface: &str,
    ) -> Result<BTreeSet<String>, Error> {
        let hook = Hook::Ingress(interface);
        let what = format!("list the chains of nf_tables at hook {hook}");
        let question = || list(NETDEV, hook);
        let found =
            self.list(Extent::Hook, question, &what, |found: &mut BTreeSet<Place>, called| {
                found.extend(read(called));
            });
        let found = match found.map_err(|error| (error.errno(), error)) {
            Ok(found) => found,
            Err((Some(Errno::ENODEV), _)) => return Ok(BTreeSet::new()),
            // `nfnetlink_rcv_msg`: nobody is there for such questions.
            Err((Some(Errno::EINVAL | Errno::EOPNOTSUPP), _)) => {
                let held = self.table(table)?.map(|it| it.chains).unwrap_or_default();
                let held = held.into_iter().filter(|it| it.is_at(hook));
                return Ok(held.map(|it| it.name).collect());
            }
            Err((_, error)) => return Err(error),
        };
        let is_one = |it: &Place| it.family == table.family && it.table == table.name;
        Ok(found.into_iter().filter(is_one).map(|it| it.chain).collect())
    }

    /// What is called at a hook of IP; `None` where the kernel does not tell.
    fn places(&mut self, hook: Hook<'_>, what: &str) -> Result<Option<BTreeSet<Place>>, Error> {
        let mut places = BTreeSet::new();
        for protocol in PROTOCOLS {
            let question = || list(protocol, hook);
            let found =
                self.list(Extent::Hook, question, what, |found: &mut Vec<Place>, called| {
                    found.extend(read(called));
                });
            match found.map_err(|error| (error.errno(), error)) {
                Ok(found) => places.extend(found),
                // `nfnetlink_rcv_msg`: nobody is there for such questions.
                Err((Some(Errno::EINVAL | Errno::EOPNOTSUPP), _)) => return Ok(None),
                Err((_, error)) => return Err(error),
            }
        }
        Ok(Some(places))
    }

    /// The same as [`Self::filters`], found among all chains.
    fn listed(&mut self, hook: Hook<'_>, what: &str) -> Result<Vec<Called>, Error> {
        let mut called = Vec::new();
        for family in [Family::Ip, Family::Ip6, Family::Inet] {
            // Of the table only its family matters to the kernel.
            let list = || Message::list_chains(Table { family, name: "" });
            let of_family =
                self.list(Extent::Chains(family), list, what, |found: &mut Vec<Called>, chain| {
                    let chain =
                        message::read_any_chain(chain).filter(|(_, it)| it.filters_at(hook));
                    found.extend(chain.map(|(table, chain)| Called { family, table, chain }));
                })?;
            called.extend(of_family);
        }
        Ok(called)
    }
}
