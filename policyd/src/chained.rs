//! What podwire's plugins keep in the kernel of a node for its pods, beside what goes with a pod's link: ports of the
//! node that lead to them, limits, what lets their packets pass, and a bridge. Their DEL takes it away; once podwire
//! is taken off the node, none comes, and a port would lead to whoever has the pod's address next.
//!
//! What is in the layout of the reference plugins stays: those that come in podwire's place know it.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;

use attachment::kernel::{
    BANDWIDTH_TABLE, FIREWALL_TABLE, PORTMAP_TABLE, RECORD_PREFIX, tells_attachment,
};
use netlink::nftables::{Batch, Change, Client};
use netlink::{Link, Request, Socket};
use nix::errno::Errno;
use ruleset::nft::{Family, Hook, Table};
use runner::{Error as RunError, Runner};

use crate::dataplane::{Error, Programs};
use crate::iptables::Family as Tables;
use crate::node_network::BRIDGE;

const PORTMAP: Table<'static> = Table { family: Family::Inet, name: PORTMAP_TABLE };
const BANDWIDTH: Table<'static> = Table { family: Family::Netdev, name: BANDWIDTH_TABLE };
const FIREWALL: Table<'static> = Table { family: Family::Inet, name: FIREWALL_TABLE };
/// The table of iptables that records are in.
const FILTER: &str = "filter";
/// Rules that were listed may be gone when they are to be deleted, where others are at work.
const ATTEMPTS: usize = 10;

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// Attachments with ports of the node in nf_tables.
    pub published: usize,
    /// IFBs, by which what an attachment sends is limited.
    pub limits: usize,
    /// Rules in others' chains of nf_tables by which packets of attachments pass.
    pub passes: usize,
    /// Chains of iptables that tell the addresses of attachments.
    pub records: usize,
    /// Whether there was a table by which bridges were kept apart.
    pub isolation: bool,
    /// Whether podwire's bridge was there, and had no port any more.
    pub bridge: bool,
}

impl Removed {
    /// Whether there was nothing.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Removed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = [
            (self.published, "with published ports"),
            (self.limits, "with limits of what they send"),
            (self.records, "with addresses on record"),
        ];
        let mut parts: Vec<String> = counted
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} attachments {what}"))
            .collect();
        if self.passes > 0 {
            parts.push(format!("{} rules in chains of others", self.passes));
        }
        let others = [(self.isolation, "the isolation of bridges"), (self.bridge, BRIDGE)];
        parts.extend(others.into_iter().filter(|(is_one, _)| *is_one).map(|(_, it)| it.to_owned()));
        formatter.write_str(&parts.join(", "))
    }
}

/// Removes all of it, whatever becomes of the others: what was removed, and what could not be.
pub fn remove<R: Runner>(mut old_tables: Programs<R>) -> (Removed, Vec<Error>) {
    let mut cleaned = Cleaned::default();
    // Before the IFBs: what is sent to one that has gone is lost.
    match nf_tables() {
        Ok(Some(mut client)) => cleaned.nf_tables(&mut client),
        Ok(None) => {}
        Err(error) => cleaned.errors.push(error.into()),
    }
    for family in Tables::ALL {
        let records = cleaned.of(old_records(&mut old_tables, family));
        cleaned.removed.records += records;
    }
    match Links::read() {
        Ok(mut links) => cleaned.links(&mut links),
        Err(error) => cleaned.errors.push(error.into()),
    }
    (cleaned.removed, cleaned.errors)
}

/// What was removed so far, and what could not be.
#[derive(Default)]
struct Cleaned {
    removed: Removed,
    errors: Vec<Error>,
}

impl Cleaned {
    /// What is told of one step; nothing of one that failed.
    fn of<T: Default>(&mut self, step: Result<T, impl Into<Error>>) -> T {
        step.unwrap_or_else(|error| {
            self.errors.push(error.into());
            T::default()
        })
    }

    fn nf_tables(&mut self, client: &mut Client) {
        self.removed.published = self.of(published(client));
        self.of(remove_table(client, BANDWIDTH));
        self.removed.isolation = self.of(remove_table(client, FIREWALL));
        self.removed.passes = self.of(passes(client));
        for family in Tables::ALL {
            for step in records(client, family) {
                let was_there = self.of(step);
                self.removed.records += usize::from(was_there);
            }
        }
    }

    fn links(&mut self, links: &mut Links) {
        for step in links.remove_ifbs() {
            let was_there = self.of(step);
            self.removed.limits += usize::from(was_there);
        }
        self.removed.bridge = self.of(links.remove_bridge());
    }
}

/// `None` where the kernel has none: sockets there are for all of netfilter.
fn nf_tables() -> Result<Option<Client>, netlink::Error> {
    let Some(mut client) = Client::open()? else { return Ok(None) };
    Ok(client.generation()?.is_some().then_some(client))
}

/// Whether it was there.
fn remove_table(client: &mut Client, table: Table<'_>) -> Result<bool, netlink::Error> {
    match client.has_table(table) {
        // A kernel without tables of this family.
        Err(error) if error.is_unsupported() => Ok(false),
        Ok(true) => client.remove(table).map(|()| true),
        told => told,
    }
}

/// Each element tells whose it is.
fn published(client: &mut Client) -> Result<usize, netlink::Error> {
    let mut owners = BTreeSet::new();
    for set in client.sets(PORTMAP)? {
        let elements = client.elements(PORTMAP, &set.name)?;
        owners.extend(elements.into_iter().filter_map(|it| it.comment));
    }
    remove_table(client, PORTMAP)?;
    Ok(owners.len())
}

/// The rules in the chains that the kernel asks of what it forwards.
fn passes(client: &mut Client) -> Result<usize, netlink::Error> {
    let mut attempt = 1;
    loop {
        let mut batch = Batch::default();
        let mut count = 0;
        for it in client.filters(Hook::Forward)? {
            for rule in client.rules(it.table(), &it.chain.name)? {
                if rule.comment.as_deref().is_some_and(tells_attachment) {
                    batch.push(it.table(), &Change::DeleteRule(&it.chain.name, rule.handle));
                    count += 1;
                }
            }
        }
        match client.commit(&batch, "remove rules that let packets of pods pass from nf_tables") {
            Err(error) if error.errno() == Some(Errno::ENOENT) && attempt < ATTEMPTS => {
                attempt += 1;
            }
            done => return done.map(|()| count),
        }
    }
}

/// Those that iptables' programs made in nf_tables: none of them is needed to remove one. Of each whether it was there.
fn records(client: &mut Client, family: Tables) -> Vec<Result<bool, netlink::Error>> {
    let table = Table { family: family.of_nf_tables(), name: FILTER };
    let chains = match client.chains(table) {
        Ok(chains) => chains.unwrap_or_default(),
        Err(error) => return vec![Err(error)],
    };
    let records = chains.iter().filter(|it| it.starts_with(RECORD_PREFIX));
    let remove = |chain: &String| match client
        .change(table, &[Change::Empty(chain), Change::DeleteChain(chain)])
    {
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(false),
        done => done.map(|()| true),
    };
    records.map(remove).collect()
}

/// Those of the older tables, which only the programs can change.
fn old_records<R: Runner>(programs: &mut Programs<R>, family: Tables) -> Result<usize, Error> {
    let names = if family.is_ipv4() { "ip_tables_names" } else { "ip6_tables_names" };
    let names = fs::read_to_string(format!("/proc/thread-self/net/{names}")).unwrap_or_default();
    if !names.lines().any(|it| it == FILTER) {
        return Ok(0);
    }
    let printed = match programs.saved_table(family, FILTER) {
        Err(Error::Run(RunError::NotFound(program))) => {
            // They do nothing, and whoever made them had the program.
            let program = program.display();
            tracing::debug!("without {program} chains {RECORD_PREFIX}... may stay");
            return Ok(0);
        }
        printed => printed?,
    };
    let chains = printed.lines().filter_map(|it| it.strip_prefix(':')?.split(' ').next());
    let records: Vec<&str> = chains.filter(|it| it.starts_with(RECORD_PREFIX)).collect();
    if records.is_empty() {
        return Ok(0);
    }
    let lines = records.iter().map(|it| format!("-F {it}\n-X {it}\n")).collect::<String>();
    programs.restore_tables(family, &format!("*{FILTER}\n{lines}COMMIT\n"))?;
    Ok(records.len())
}

/// The links of the node.
struct Links {
    socket: Socket,
    all: Vec<Link>,
}

impl Links {
    fn read() -> Result<Self, netlink::Error> {
        let mut socket = Socket::open()?;
        let all = socket.links()?;
        Ok(Self { socket, all })
    }

    /// Those of the reference plugin have no alias. Of each whether it was removed, and before that of each
    /// redirection, which counts for nothing.
    fn remove_ifbs(&mut self) -> Vec<Result<bool, netlink::Error>> {
        let Self { socket, all } = self;
        let is_ours =
            |it: &&Link| it.kind == "ifb" && it.alias.as_deref().is_some_and(tells_attachment);
        let ifbs: Vec<&Link> = all.iter().filter(is_ours).collect();
        if ifbs.is_empty() {
            return Vec::new();
        }
        // Where the kernel's nf_tables cannot redirect, traffic control does, and loses what it redirects to a
        // link that has gone.
        let ends = all.iter().filter(|it| it.kind == "veth");
        let mut steps: Vec<_> =
            ends.map(|link| end_redirects(socket, link, &ifbs).map(|()| false)).collect();
        steps.extend(ifbs.iter().map(|ifb| {
            socket.execute(&[Request::delete_link(&ifb.name).or_gone()]).map(|()| true)
        }));
        steps
    }

    /// Pods that run keep theirs.
    fn remove_bridge(&mut self) -> Result<bool, netlink::Error> {
        let is_it = |it: &&Link| it.name == BRIDGE && it.kind == "bridge";
        let Some(bridge) = self.all.iter().find(is_it) else { return Ok(false) };
        if self.all.iter().any(|it| it.controller == Some(bridge.index)) {
            tracing::info!("bridge {BRIDGE} stays: pods are on it");
            return Ok(false);
        }
        self.socket.execute(&[Request::delete_link(BRIDGE).or_gone()])?;
        Ok(true)
    }
}

fn end_redirects(socket: &mut Socket, link: &Link, ifbs: &[&Link]) -> Result<(), netlink::Error> {
    for index in socket.redirects(link.index, &link.name)? {
        if ifbs.iter().any(|ifb| ifb.index == index) {
            socket.end_redirects(link.index, &link.name, index)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_removed_is_told_in_one_line() {
        assert!(Removed::default().is_nothing());
        let removed = Removed { published: 2, passes: 3, bridge: true, ..Removed::default() };
        assert!(!removed.is_nothing());
        assert_eq!(
            removed.to_string(),
            "2 attachments with published ports, 3 rules in chains of others, podwire0"
        );
    }
}
