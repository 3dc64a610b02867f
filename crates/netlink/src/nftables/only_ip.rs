//! Ports of bridges that no frame passes but those of IP and ARP.
//!
//! br_netfilter shows iptables no frame that has a tag, unless a sysctl of the whole node says so;
//! but a tag of VLAN 0 means nothing, and who receives it takes the packet as any other. Frames of
//! other protocols iptables knows nothing of. So what a container sends in one would pass all rules. A
//! table of the bridge family drops it first.

mod message;

use std::collections::BTreeSet;

use nix::errno::Errno;
use ruleset::nft::Hook;

use super::Client;
use super::expression::{ARP_FRAME, IPV4_FRAME, IPV6_FRAME, Interface, NAME_ROOM};
use crate::Error;

/// The types of frames that pass: those of IPv4, IPv6 and ARP, which is no more judged than IPv6's
/// discovery. A tag (802.1Q, 802.1ad) is a type of its own.
const PASSING: [u16; 3] = [IPV4_FRAME, IPV6_FRAME, ARP_FRAME];
/// A list of members is one attribute, of 64 KiB at most; each takes 28 bytes.
const MOST_AT_ONCE: usize = 1024;
/// The set of the ports' names.
const SET: &str = "ports";
/// Ahead of br_netfilter (0), and of who changes addresses (`NF_BR_PRI_NAT_DST_BRIDGED`).
const PRIORITY: i32 = -300;

/// A chain of the table, with its one rule.
#[derive(Debug)]
struct Chain {
    name: &'static str,
    hook: Hook<'static>,
    interface: Interface,
}

/// What a port's container sends, to other ports or to the bridge itself; and what any other port
/// would have forwarded to it.
const CHAINS: [Chain; 2] = [
    Chain { name: "from-ports", hook: Hook::Prerouting, interface: Interface::In },
    Chain { name: "to-ports", hook: Hook::Forward, interface: Interface::Out },
];

/// What the kernel holds of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Held {
    /// No table has its name.
    #[default]
    Nothing,
    /// The table has that name and is not as it should be.
    Other,
    /// The table is as it should be, for these ports.
    Ports(BTreeSet<String>),
}

/// The table of the bridge family with this name.
#[derive(Debug)]
pub struct OnlyIp<'a> {
    client: &'a mut Client,
    table: &'a str,
}

impl Client {
    /// The table of the bridge family, of this name, that keeps other frames from ports.
    pub const fn only_ip<'a>(&'a mut self, table: &'a str) -> OnlyIp<'a> {
        OnlyIp { client: self, table }
    }
}

impl OnlyIp<'_> {
    /// What the kernel holds.
    ///
    /// # Errors
    /// [`Error`], also without `CAP_NET_ADMIN`.
    pub fn read(&mut self) -> Result<Held, Error> {
        match self.read_parts() {
            // Somebody removed a part between two questions.
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(Held::Other),
            read => read,
        }
    }

    fn read_parts(&mut self) -> Result<Held, Error> {
        let what = format!("read table {:?} of the bridges in nf_tables", self.table);
        let Some(found) = self.client.get(message::get_table(self.table), &what)? else {
            return Ok(Held::Nothing);
        };
        if !message::is_awake(&found) {
            return Ok(Held::Other);
        }
        for chain in &CHAINS {
            let found = self.client.get(message::get_chain(self.table, chain.name), &what)?;
            if !found.is_some_and(|it| message::is_like(&it, chain)) {
                return Ok(Held::Other);
            }
            let table = self.table;
            let list = || message::list_rules(table, chain.name);
            let held = self.client.list(list, &what, |rules: &mut Vec<Vec<u8>>, rule| {
                rules.extend(message::read_remark(rule, table, chain.name));
            });
            if held? != [message::remark(chain)] {
                return Ok(Held::Other);
            }
        }
        let set = self.client.get(message::get_set(self.table), &what)?;
        if !set.is_some_and(|it| message::is_set_of_names(&it)) {
            return Ok(Held::Other);
        }
        let table = self.table;
        let list = || message::list_members(table);
        let ports = self.client.list(list, &what, |ports: &mut BTreeSet<String>, members| {
            ports.extend(message::read_members(members));
        });
        Ok(Held::Ports(ports?))
    }

    /// Writes the table anew, for these ports, in place of whatever has its name. What cannot be
    /// the name of a link is left out.
    ///
    /// # Errors
    /// [`Error`], of which [`Error::NoBridgeTables`] says that the kernel cannot.
    pub fn write(&mut self, ports: &BTreeSet<String>) -> Result<(), Error> {
        let what = format!("write table {:?} of the bridges to nf_tables", self.table);
        // Once made it can be deleted, whether it was there or not.
        let mut changes = vec![
            message::new_table(self.table),
            message::delete_table(self.table),
            message::new_table(self.table),
            message::new_set(self.table),
        ];
        for chain in &CHAINS {
            changes.push(message::new_chain(self.table, chain));
            changes.push(message::new_rule(self.table, chain));
        }
        changes.extend(message::change_members(self.table, ports, true));
        self.client.commit(changes, &what).map_err(|error| {
            // Or a kind of chain or an expression that the kernel does not have: all else comes in
            // the same transaction.
            let is_missing = error.is_unsupported() || error.errno() == Some(Errno::ENOENT);
            if is_missing { Error::NoBridgeTables { what } } else { error }
        })
    }

    /// Adds and removes ports of a table that is as it should be.
    ///
    /// # Errors
    /// [`Error`]; where one that shall go is not there, none is changed.
    pub fn change(
        &mut self,
        come: &BTreeSet<String>,
        gone: &BTreeSet<String>,
    ) -> Result<(), Error> {
        let what = format!("change the ports in table {:?} of the bridges", self.table);
        let mut changes = message::change_members(self.table, come, true);
        changes.extend(message::change_members(self.table, gone, false));
        self.client.commit(changes, &what)
    }

    /// Removes the table with all that is in it, if there is one.
    ///
    /// # Errors
    /// [`Error`].
    pub fn remove(&mut self) -> Result<(), Error> {
        self.client.remove(message::of_bridges(self.table))
    }
}
