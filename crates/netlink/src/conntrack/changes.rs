//! Hearing of flows that begin, change and end.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use netlink_packet_core::NLM_F_CREATE;
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::Flow;
use super::message::{self, DELETE, NEW};
use crate::netfilter::message::{HEADERS, IPV4};
use crate::subscription::Subscription;
use crate::{Error, Event};

/// `NFNLGRP_CONNTRACK_NEW`, `_UPDATE` and `_DESTROY`.
const GROUPS: [u32; 3] = [1, 2, 3];

/// Something that happened to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// What.
    pub happened: Happened,
    /// The flow as it is since; one that has ended, as it was.
    pub flow: Flow,
}

/// What happens to flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happened {
    /// Its first packet was let through.
    Began,
    /// Its state, its mark or something else of it changed.
    Changed,
    /// The kernel forgot it.
    Ended,
}

/// Hears of the flows of the namespace in which it was opened, except for those that began before anybody
/// there heard of flows, which end unheard (`nf_conntrack_events`, where it is 2 as by default).
#[derive(Debug)]
pub struct Changes(Subscription);

impl Changes {
    /// Hears of what happens from now on: what is there already has to be listed, afterwards.
    ///
    /// # Errors
    /// [`Error::Socket`], also without `CAP_NET_ADMIN`.
    pub fn open() -> Result<Self, Error> {
        Subscription::open_of(NETLINK_NETFILTER, &GROUPS, "hear of tracked flows").map(Self)
    }

    /// What happened, as far as it is told at once; `None` when nothing did. Never waits: the descriptor
    /// becomes readable.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn receive(&mut self) -> Result<Option<Vec<Event<Change>>>, Error> {
        self.0.receive(|received| {
            let happened = match received.kind.to_be_bytes() {
                NEW if received.flags & NLM_F_CREATE != 0 => Happened::Began,
                NEW => Happened::Changed,
                DELETE => Happened::Ended,
                _ => return None,
            };
            let is_ipv4 = *received.body().first()? == IPV4;
            let flow = message::read(received.bytes.get(HEADERS..)?, is_ipv4)?;
            Some(Change { happened, flow })
        })
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Changes {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
