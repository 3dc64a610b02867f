//! Interfaces that are closed: nothing that comes by them is received, and nothing is sent there.
//!
//! Of each, a table of the family netdev has two chains without rules that drop all they see, for
//! either direction. They are called ahead of bridges, routes and iptables, and see frames of any
//! kind; other interfaces pass by without them. In old kernels a chain goes with its interface; in
//! newer ones it stays, and is for whatever gets the interface's name next.

use std::collections::BTreeSet;

use nix::errno::Errno;
use ruleset::nft::{Base, Chain, Family, Hook, Kind, Policy, Table};

use super::{Change, Client, HeldTable};
use crate::Error;

/// Ahead of whoever else has a chain there: they begin with 0, or some hundreds less.
const PRIORITY: i32 = -500;
/// What is behind the interface's name in the name of the chain for what goes out. No interface's
/// has a slash.
const EGRESS: &str = "/egress";
/// How often others may change the table while interfaces are opened.
const ATTEMPTS: u32 = 5;

/// What of an interface is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sides {
    /// What comes by it and what goes there.
    Both,
    /// Only what comes by it: the kernel can do no more (before 5.16, or without
    /// `CONFIG_NETFILTER_EGRESS`).
    Ingress,
}

/// The table of the family netdev with this name.
#[derive(Debug)]
pub struct Closed<'a> {
    client: &'a mut Client,
    table: Table<'a>,
}

impl Client {
    /// The table of the family netdev, of this name, that keeps interfaces closed.
    pub const fn closed<'a>(&'a mut self, table: &'a str) -> Closed<'a> {
        Closed { client: self, table: Table { family: Family::Netdev, name: table } }
    }
}

/// Closes an interface of the calling thread's namespace, which may be closed already, by the table of
/// this name.
///
/// # Errors
/// As [`Closed::close`], also where the kernel has no nf_tables at all.
pub fn close_interface(table: &str, interface: &str) -> Result<Sides, Error> {
    let mut client = Client::open()?.ok_or_else(|| cannot_close(interface))?;
    client.closed(table).close(interface)
}

fn cannot_close(interface: &str) -> Error {
    Error::NoInterfaceTables { what: format!("close interface {interface:?}") }
}

impl Closed<'_> {
    /// Closes an interface, which may be closed already.
    ///
    /// # Errors
    /// [`Error`], of which [`Error::NoInterfaceTables`] says that the kernel cannot: then it is open.
    pub fn close(&mut self, interface: &str) -> Result<Sides, Error> {
        let held = self.client.table(self.table)?;
        self.wake(held.as_ref())?;
        match self.add_chain(interface, Hook::Ingress(interface)) {
            Err(error) if error.is_unsupported() => return Err(cannot_close(interface)),
            done => done?,
        }
        let outgoing = format!("{interface}{EGRESS}");
        match self.add_chain(&outgoing, Hook::Egress(interface)) {
            Ok(()) => Ok(Sides::Both),
            Err(error) if error.is_unsupported() => Ok(Sides::Ingress),
            Err(error) => {
                // Half closed is none of the two; what went wrong first is what counts.
                _ = self.open(|it| Ok(it == interface));
                Err(error)
            }
        }
    }

    /// Somebody may have had the table sleep: then nothing is closed by it.
    fn wake(&mut self, held: Option<&HeldTable>) -> Result<(), Error> {
        if held.is_none_or(|it| it.is_awake) {
            return Ok(());
        }
        self.client.change(self.table, &[Change::Wake])
    }

    fn add_chain(&mut self, name: &str, hook: Hook<'_>) -> Result<(), Error> {
        let base = Base { kind: Kind::Filter, hook, priority: PRIORITY, policy: Policy::Drop };
        let chain = Chain { name, base: Some(base), comment: None };
        self.client.change(self.table, &[Change::Table(None), Change::Chain(&chain)])
    }

    /// The interfaces that are closed, whether there are links of these names or not.
    ///
    /// # Errors
    /// [`Error`], also without `CAP_NET_ADMIN`.
    pub fn read(&mut self) -> Result<BTreeSet<String>, Error> {
        let chains = self.client.chains(self.table)?;
        Ok(chains.iter().flatten().map(|it| interface(it).to_owned()).collect())
    }

    /// Opens the closed interfaces that `which` tells, and removes the table when none is left; the others are closed, even
    /// where somebody had the table sleep. Those
    /// that it opened; when none is closed, one question is all.
    ///
    /// # Errors
    /// [`Error`], also those of `which`.
    pub fn open(
        &mut self,
        mut which: impl FnMut(&str) -> Result<bool, Error>,
    ) -> Result<BTreeSet<String>, Error> {
        let mut attempt = 1;
        loop {
            let Some(held) = self.client.table(self.table)? else { return Ok(BTreeSet::new()) };
            self.wake(Some(&held))?;
            let chains: Vec<_> = held.chains.into_iter().map(|it| it.name).collect();
            let mut opened = BTreeSet::new();
            for name in chains.iter().map(|it| interface(it)) {
                if !opened.contains(name) && which(name)? {
                    opened.insert(name.to_owned());
                }
            }
            let (going, staying): (Vec<_>, Vec<_>) =
                chains.iter().partition(|it| opened.contains(interface(it)));
            let mut changes: Vec<_> = going.iter().map(|it| Change::DeleteChain(it)).collect();
            // What others may have put into it must not keep an interface closed.
            if staying.is_empty() && attempt < ATTEMPTS {
                changes.push(Change::DeleteTable);
            }
            match self.client.change(self.table, &changes) {
                // Somebody closed or opened another one meanwhile.
                Err(error)
                    if attempt < ATTEMPTS
                        && matches!(error.errno(), Some(Errno::ENOENT | Errno::EBUSY)) => {}
                done => return done.map(|()| opened),
            }
            attempt += 1;
        }
    }

    /// Opens all, and removes the table.
    ///
    /// # Errors
    /// [`Error`].
    pub fn remove(&mut self) -> Result<(), Error> {
        self.client.remove(self.table)
    }
}

/// The interface that a chain is of.
fn interface(chain: &str) -> &str {
    chain.strip_suffix(EGRESS).unwrap_or(chain)
}
