//! Waiting for a change by its announcement instead of by looking again and again.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_ROUTE;

use crate::subscription::Subscription;
use crate::{Error, Event};

/// RTNLGRP_LINK.
pub(crate) const LINK_GROUP: u32 = 1;
/// RTNLGRP_IPV4_IFADDR.
const IPV4_ADDRESS_GROUP: u32 = 5;
/// RTNLGRP_IPV6_IFADDR.
const IPV6_ADDRESS_GROUP: u32 = 9;

/// Hears of the changes in the namespace in which it was opened.
#[derive(Debug)]
pub struct Monitor(Subscription);

impl Monitor {
    /// Hears of links.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn of_links() -> Result<Self, Error> {
        Self::of(&[LINK_GROUP])
    }

    /// Hears of IPv6 addresses.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn of_ipv6_addresses() -> Result<Self, Error> {
        Self::of(&[IPV6_ADDRESS_GROUP])
    }

    /// Hears of addresses of both families.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn of_addresses() -> Result<Self, Error> {
        Self::of(&[IPV4_ADDRESS_GROUP, IPV6_ADDRESS_GROUP])
    }

    fn of(groups: &[u32]) -> Result<Self, Error> {
        Subscription::open_of(NETLINK_ROUTE, groups, "listen for changes").map(Self)
    }

    /// Whether something happened, an event for each; `None` when nothing did. Never waits: the descriptor becomes
    /// readable.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn receive(&mut self) -> Result<Option<Vec<Event<()>>>, Error> {
        self.0.receive(|_| Some(()))
    }

    /// Calls `look` until it finds something, again after every change, for `timeout` at most.
    /// What changed before the monitor was opened is seen by the first look.
    ///
    /// # Errors
    /// Those of `look`, and [`Error::Socket`].
    pub fn wait_for<T, E: From<Error>>(
        &mut self,
        timeout: Duration,
        mut look: impl FnMut() -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let milliseconds = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
            self.0.wait_and_drain(milliseconds)?;
        }
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}
