//! Hearing of what decides where packets go.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use netlink_sys::protocols::NETLINK_ROUTE;

use crate::monitor::LINK_GROUP;
use crate::subscription::Subscription;
use crate::{Error, Event};

/// RTNLGRP_IPV4_IFADDR and _ROUTE, RTNLGRP_IPV6_IFADDR and _ROUTE, RTNLGRP_IPV4_NETCONF and
/// RTNLGRP_IPV6_NETCONF, besides those of links.
const GROUPS: [u32; 7] = [LINK_GROUP, 5, 7, 9, 11, 24, 25];

/// Hears of links, addresses, routes and forwarding, of both families, in the namespace in which it
/// was opened.
#[derive(Debug)]
pub struct RoutingChanges(Subscription);

impl RoutingChanges {
    /// Hears of what changes from now on: what is there already has to be listed, afterwards.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open() -> Result<Self, Error> {
        Subscription::open_of(NETLINK_ROUTE, &GROUPS, "hear of routes").map(Self)
    }

    /// Whether something happened, an event for each; `None` when nothing did. Never waits: the
    /// descriptor becomes readable.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn receive(&mut self) -> Result<Option<Vec<Event<()>>>, Error> {
        self.0.receive(|_| Some(()))
    }
}

impl AsFd for RoutingChanges {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for RoutingChanges {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
