//! Flows that the kernel tracks: listing, marking and forgetting them, and hearing of them
//! (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`).

mod changes;
mod message;

use std::net::IpAddr;

use nix::errno::Errno;

use crate::netfilter::message::Message;
use crate::netfilter::{Socket, refused};
use crate::{Error, Layer4, Tuple};
pub use changes::{Change, Changes, Happened};

/// As many flows are forgotten by one message: there is room for the refusal of each.
const AT_ONCE: usize = 128;

/// A flow as the kernel tracks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// As its first packet came in, before any translation.
    pub original: Tuple,
    /// As answers come in: their source is where the flow goes after translation.
    pub reply: Tuple,
    /// Its state, apart from that of its protocol.
    pub status: Status,
    /// Its mark (connmark).
    pub mark: u32,
    /// Whether it is one of TCP that was taken up from its middle: then who began it is not known, and may
    /// be the other one.
    pub is_taken_up: bool,
    /// The kernel's name for it, by which it is told from a later one of the same ends, unless that is in
    /// the same memory (`nf_ct_get_id`); 0 where it is not known.
    pub id: u32,
    /// Its zone, 0 unless a rule gave it another; one of a single direction is not told.
    pub zone: u16,
}

/// Bits of `enum ip_conntrack_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    /// An answer was seen.
    #[must_use]
    pub const fn has_reply(self) -> bool {
        self.0 & 1 << 1 != 0
    }

    /// Its destination was translated (DNAT).
    #[must_use]
    pub const fn is_destination_translated(self) -> bool {
        self.0 & 1 << 5 != 0
    }
}

/// Which flows to list: those for which all that is said here is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// Flows of IPv4, or those of IPv6.
    pub is_ipv4: bool,
    /// Their mark, in the bits of the mask.
    pub mark: Option<Mark>,
    /// One of their ends.
    pub end: Option<End>,
    /// Number of the protocol above IP, such as 17 for UDP.
    pub protocol: Option<u8>,
    /// The port that they were sent to, before any translation.
    pub port: Option<u16>,
}

impl Filter {
    /// All flows of a family.
    #[must_use]
    pub const fn all(is_ipv4: bool) -> Self {
        Self { is_ipv4, mark: None, end: None, protocol: None, port: None }
    }

    fn passes(&self, flow: &Flow) -> bool {
        let has_mark = |mark: Mark| flow.mark & mark.mask == mark.value & mark.mask;
        let has_end = |end| match end {
            End::Source(address) => flow.original.source == address,
            End::Destination(address) => flow.reply.source == address,
            End::OriginalDestination(address) => flow.original.destination == address,
        };
        let has_port = |port| match flow.original.layer4 {
            Layer4::Ports { destination, .. } => destination == port,
            Layer4::Icmp { .. } | Layer4::Unknown => false,
        };
        self.mark.is_none_or(has_mark)
            && self.end.is_none_or(has_end)
            && self.protocol.is_none_or(|it| flow.original.protocol == it)
            && self.port.is_none_or(has_port)
    }
}

/// Some bits of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The bits' values; what is not in the mask is not looked at.
    pub value: u32,
    /// Which bits.
    pub mask: u32,
}

/// One end of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Who began it, before any translation.
    Source(IpAddr),
    /// With whom it was begun, after translation.
    Destination(IpAddr),
    /// Whom its first packet was sent to, before any translation: a service, or a published address.
    OriginalDestination(IpAddr),
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The flow is as it should be.
    Done,
    /// The flow has ended meanwhile.
    FlowGone,
}

/// A conntrack socket of the namespace in which it was opened.
#[derive(Debug)]
pub struct Client(Socket);

impl Client {
    /// Opens a socket in the calling thread's namespace; `None` when the kernel has no netfilter.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open() -> Result<Option<Self>, Error> {
        Ok(Socket::open("a conntrack")?.map(Self))
    }

    /// Gives the flows that pass `filter` to `take`, one by one as they are read: nothing is kept.
    /// Flows that begin or end meanwhile may be told or not.
    ///
    /// # Errors
    /// [`Error`].
    pub fn flows(&mut self, filter: &Filter, mut take: impl FnMut(&Flow)) -> Result<(), Error> {
        let message = message::list(filter);
        self.0.list(message, "list tracked flows", |flow| {
            if let Some(flow) = message::read(flow, filter.is_ipv4)
                && filter.passes(&flow)
            {
                take(&flow);
            }
        })?;
        Ok(())
    }

    /// Sets some bits of a flow's mark. A rule that sets others of the same flow at the same
    /// moment may undo it, or be undone: the kernel reads and writes the mark in two steps.
    ///
    /// # Errors
    /// [`Error`].
    pub fn set_mark(&mut self, flow: &Flow, mark: Mark) -> Result<Outcome, Error> {
        self.change(flow, "mark", message::set_mark(flow, mark))
    }

    /// Has the kernel forget a flow. The next packet of it, from either end, begins a new one.
    ///
    /// # Errors
    /// [`Error`].
    pub fn forget(&mut self, flow: &Flow) -> Result<Outcome, Error> {
        self.change(flow, "forget", message::delete(flow))
    }

    /// Has the kernel forget all flows that pass `filter`, and tells how many there were. One that begins
    /// meanwhile may stay.
    ///
    /// # Errors
    /// [`Error`].
    pub fn forget_all(&mut self, filter: &Filter) -> Result<usize, Error> {
        // No other message may be sent before the list was read to its end.
        let mut flows = Vec::new();
        self.flows(filter, |flow| flows.push(*flow))?;
        self.forget_each(&flows)
    }

    /// Has the kernel forget these flows, many of them by one message, and tells how many were still there.
    ///
    /// # Errors
    /// [`Error`]: others of them may be forgotten.
    pub fn forget_each(&mut self, flows: &[Flow]) -> Result<usize, Error> {
        const WHAT: &str = "forget tracked flows";
        let mut count = 0;
        for flows in flows.chunks(AT_ONCE) {
            let refusals = self.0.change_each(flows.iter().map(message::delete), WHAT)?;
            if let Some(code) = refusals.iter().find(|it| **it != Errno::ENOENT as i32) {
                return Err(refused(WHAT.to_owned(), *code));
            }
            count += flows.len() - refusals.len();
        }
        Ok(count)
    }

    fn change(&mut self, flow: &Flow, verb: &str, message: Message) -> Result<Outcome, Error> {
        let (source, destination) = (flow.original.source, flow.original.destination);
        let what = format!("{verb} the flow from {source} to {destination}");
        match self.0.change(message, &what)? {
            0 => Ok(Outcome::Done),
            code if code == Errno::ENOENT as i32 => Ok(Outcome::FlowGone),
            code => Err(refused(what, code)),
        }
    }
}
