//! Hearing of changes to the rules, and of who made them.

use std::collections::BTreeSet;
use std::mem::take;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use netlink_sys::protocols::NETLINK_NETFILTER;

use super::message::NEW_GENERATION;
use crate::attributes::{find, network_number, text};
use crate::netfilter::message::HEADERS;
use crate::socket::wait_readable;
use crate::subscription::Subscription;
use crate::{Error, Event};

/// `NFNLGRP_NFTABLES`.
pub(super) const GROUP: u32 = 7;
/// What may be told and is not read yet: thousands of transactions, or a large one.
pub(super) const ROOM: usize = 8 << 20;
const GENERATION_ID: u16 = 1;
const PROCESS_ID: u16 = 2;
const PROCESS_NAME: u16 = 3;
/// The table's name in all messages but the generation's: `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE`,
/// `NFTA_RULE_TABLE`, `NFTA_SET_TABLE`, `NFTA_SET_ELEM_LIST_TABLE`, `NFTA_OBJ_TABLE`.
pub(super) const TABLE: u16 = 1;

/// A transaction that changed the rules, sets or tables of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Number that the rules have had since; the next has the next.
    pub id: u32,
    /// Who made it, as process ids are outside of all containers; 0 when the kernel does not tell.
    pub process_id: u32,
    /// Name of that process, 15 bytes at most: a program's file, or what it calls itself.
    pub process_name: String,
    /// The netlink port through which it came: most programs' is their process id as they know it
    /// themselves, in a container too.
    pub port: u32,
    /// Names of the tables in which something changed, of all families; none when the kernel did
    /// not tell.
    pub tables: BTreeSet<String>,
}

/// Hears of the changes in the namespace in which it was opened.
#[derive(Debug)]
pub struct Changes {
    subscription: Subscription,
    /// Tables of the transaction that is being told of: its generation comes last.
    tables: BTreeSet<String>,
}

impl Changes {
    /// Hears of what changes from now on.
    ///
    /// # Errors
    /// [`Error::Socket`], also without `CAP_NET_ADMIN`.
    pub fn open() -> Result<Self, Error> {
        let opened = Subscription::open(NETLINK_NETFILTER, GROUP, "hear of changes in nf_tables");
        opened.map(|it| Self { subscription: it.with_room(ROOM), tables: BTreeSet::new() })
    }

    /// Waits until something is told, for this time at most; whether there may be something.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn wait(&self, timeout: Duration) -> Result<bool, Error> {
        // A little longer than told: what is left of a millisecond is waited for too.
        let milliseconds = u16::try_from(timeout.as_millis() + 1).unwrap_or(u16::MAX);
        wait_readable(self.as_fd(), milliseconds).map_err(|source| Error::Socket {
            what: "wait for changes in nf_tables".into(),
            source,
        })
    }

    /// The transactions that were made, as far as they are told at once; `None` when there is
    /// nothing yet. Never waits: the descriptor becomes readable. All that a transaction changes
    /// is queued ahead of it, so that one of hundreds of thousands leaves [`Event::Missed`].
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn receive(&mut self) -> Result<Option<Vec<Event<Generation>>>, Error> {
        let tables = &mut self.tables;
        let events = self.subscription.receive(|received| {
            let attributes = received.bytes.get(HEADERS..)?;
            if received.kind != u16::from_be_bytes(NEW_GENERATION) {
                tables.extend(find(attributes, TABLE).map(text));
                return None;
            }
            Some(Generation {
                tables: take(tables),
                id: read_id(attributes)?,
                process_id: find(attributes, PROCESS_ID).and_then(network_number).unwrap_or(0),
                process_name: find(attributes, PROCESS_NAME).map(text).unwrap_or_default(),
                port: received.port,
            })
        })?;
        if events.iter().flatten().any(|event| *event == Event::Missed) {
            self.tables.clear();
        }
        Ok(events)
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.subscription.as_fd()
    }
}

impl AsRawFd for Changes {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// The number of a generation.
pub(super) fn read_id(attributes: &[u8]) -> Option<u32> {
    find(attributes, GENERATION_ID).and_then(network_number)
}
