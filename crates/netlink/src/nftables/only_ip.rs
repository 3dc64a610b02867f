//! Ports of bridges that no frame passes but those of IP and ARP.
//!
//! br_netfilter shows iptables no frame that has a tag, unless a sysctl of the whole node says so;
//! but a tag of VLAN 0 means nothing, and who receives it takes the packet as any other. Frames of
//! other protocols iptables knows nothing of. So what a container sends in one would pass all rules. A
//! table of the bridge family drops it first.

use std::collections::BTreeSet;

use nix::errno::Errno;
use ruleset::nft::{
    Base, Chain, Element, Encoded, Family, Field, FrameType, Hook, Key, Kind, Match, Policy, Rule,
    Set, Table, Value, Verdict,
};
use ruleset::short_hash;

use super::{Change, Client};
use crate::Error;

/// The types of frames that pass: ARP is no more judged than IPv6's discovery. A tag (802.1Q, 802.1ad) is a
/// type of its own.
const PASSING: [FrameType; 3] = [FrameType::Ipv4, FrameType::Ipv6, FrameType::Arp];
/// The set of the ports' names.
const SET: &str = "ports";
/// Ahead of br_netfilter (0), and of who changes addresses (`NF_BR_PRI_NAT_DST_BRIDGED`).
const PRIORITY: i32 = -300;

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
    table: Table<'a>,
}

impl Client {
    /// The table of the bridge family, of this name, that keeps other frames from ports.
    pub const fn only_ip<'a>(&'a mut self, table: &'a str) -> OnlyIp<'a> {
        OnlyIp { client: self, table: Table { family: Family::Bridge, name: table } }
    }
}

/// The chains, each with its one rule: for what a port's container sends, to other ports or to the bridge
/// itself; and for what any other port would have forwarded to it.
fn chains() -> [(Chain<'static>, Rule); 2] {
    [
        chain("from-ports", Hook::Prerouting, Field::InInterface),
        chain("to-ports", Hook::Forward, Field::OutInterface),
    ]
}

/// What most frames are comes first. By its comment a rule is known again: rules are not read back.
fn chain(name: &'static str, hook: Hook<'static>, interface: Field) -> (Chain<'static>, Rule) {
    let base = Base { kind: Kind::Filter, hook, priority: PRIORITY, policy: Policy::Accept };
    let other = PASSING.into_iter().map(Match::NotFrameType);
    let matches: Vec<_> = other.chain([Match::In(vec![interface], SET.to_owned())]).collect();
    let rule = Rule::new(matches, Verdict::Drop).counted();
    let comment = format!("iptables would not see it; {}", short_hash(&rule.to_string()));
    (Chain { name, base: Some(base), comment: None }, rule.commented(comment))
}

fn ports_set() -> Set {
    Set::new(SET, [Key::Interface])
}

/// Names as elements; what cannot be the name of a link is left out.
fn elements(names: &BTreeSet<String>) -> Vec<Encoded> {
    let (set, element) = (ports_set(), |it: &String| Element::new([Value::Interface(it.clone())]));
    names.iter().flat_map(|it| set.encode(&element(it))).collect()
}

impl OnlyIp<'_> {
    /// What the kernel holds.
    ///
    /// # Errors
    /// [`Error`], also without `CAP_NET_ADMIN`.
    pub fn read(&mut self) -> Result<Held, Error> {
        let Some(held) = self.client.table(self.table)? else { return Ok(Held::Nothing) };
        if !held.is_awake {
            return Ok(Held::Other);
        }
        for (chain, rule) in chains() {
            let rules = self.client.rules(self.table, chain.name)?;
            let comments: Vec<_> = rules.into_iter().map(|it| it.comment).collect();
            if !held.chains.iter().any(|it| it.is_like(&chain)) || comments != [rule.comment] {
                return Ok(Held::Other);
            }
        }
        if !self
            .client
            .sets(self.table)?
            .iter()
            .any(|it| it.name == SET && it.is_like(&ports_set()))
        {
            return Ok(Held::Other);
        }
        let held = self.client.elements(self.table, SET)?;
        Ok(Held::Ports(held.iter().filter_map(Encoded::interface).collect()))
    }

    /// Writes the table anew, for these ports, in place of whatever has its name. What cannot be
    /// the name of a link is left out.
    ///
    /// # Errors
    /// [`Error`], of which [`Error::NoBridgeTables`] says that the kernel cannot.
    pub fn write(&mut self, ports: &BTreeSet<String>) -> Result<(), Error> {
        let (set, chains, elements) = (ports_set(), chains(), elements(ports));
        // Once made it can be deleted, whether it was there or not.
        let mut changes =
            vec![Change::Table(None), Change::DeleteAll, Change::Table(None), Change::Set(&set)];
        for (chain, rule) in &chains {
            changes.extend([Change::Chain(chain), Change::Rule(chain.name, rule)]);
        }
        changes.push(Change::Elements(SET, &elements));
        self.client.change(self.table, &changes).map_err(|error| {
            // Or a kind of chain or an expression that the kernel does not have: all else comes in
            // the same transaction.
            let is_missing = error.is_unsupported() || error.errno() == Some(Errno::ENOENT);
            let what = format!("write table {} to nf_tables", self.table);
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
        let (come, gone) = (elements(come), elements(gone));
        let changes = [Change::Elements(SET, &come), Change::DeleteElements(SET, &gone)];
        self.client.change(self.table, &changes)
    }

    /// Removes the table with all that is in it, if there is one.
    ///
    /// # Errors
    /// [`Error`].
    pub fn remove(&mut self) -> Result<(), Error> {
        self.client.remove(self.table)
    }
}
