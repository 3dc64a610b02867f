//! Hearing of links as they come, change and go.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use netlink_sys::protocols::NETLINK_ROUTE;

use super::{Link, read};
use crate::monitor::LINK_GROUP;
use crate::subscription::Subscription;
use crate::{Error, Event};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const AF_UNSPEC: u8 = 0;

/// What became of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkChange {
    /// It is there and is now like this; what was different before, if anything, is not told.
    Is(Link),
    /// It is no longer in the namespace.
    Gone {
        /// Index that it had.
        index: u32,
        /// Name that it had.
        name: String,
    },
}

/// Hears of the links of the namespace in which it was opened.
#[derive(Debug)]
pub struct LinkChanges(Subscription);

impl LinkChanges {
    /// Hears of what changes from now on: what is there already has to be listed, afterwards.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open() -> Result<Self, Error> {
        Subscription::open(NETLINK_ROUTE, LINK_GROUP, "hear of links").map(Self)
    }

    /// What happened, as far as it is told at once; `None` when there is nothing yet. Never waits:
    /// the descriptor becomes readable.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn receive(&mut self) -> Result<Option<Vec<Event<LinkChange>>>, Error> {
        self.0.receive(|received| {
            let is_new = match received.kind {
                RTM_NEWLINK => true,
                RTM_DELLINK => false,
                _ => return None,
            };
            // A bridge tells of its ports in messages of its own family, and of a port that leaves
            // it as if the link were gone.
            if received.body().first() != Some(&AF_UNSPEC) {
                return None;
            }
            let link = read(received.body())?;
            Some(if is_new {
                LinkChange::Is(link)
            } else {
                LinkChange::Gone { index: link.index, name: link.name }
            })
        })
    }
}

impl AsFd for LinkChanges {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for LinkChanges {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}
