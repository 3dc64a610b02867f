//! A list of a set's elements that is read piece by piece.

use std::time::Instant;

use nix::errno::Errno;
use ruleset::nft::{Encoded, Table};

use super::set;
use crate::Error;
use crate::netfilter::message::HEADERS;
use crate::netfilter::{Socket, end};

/// A list of a set's or map's elements, which has a socket of its own: others may be written to meanwhile, and who has read
/// enough drops it. What takes such a list as its time has the kernel go through the set from its start for each piece, so
/// of a large one that takes long.
///
/// Where elements come and go meanwhile, as packets say or by themselves, some may be told twice or not at all: the kernel
/// goes on behind as many as it has told, whichever these were (`nft_rhash_walk`).
#[derive(Debug)]
pub struct Listing {
    socket: Socket,
    sequence: u32,
    what: String,
    /// The kernel has written the next piece at this time, or later: it does so when the one before is read.
    written: Instant,
    has_ended: bool,
}

/// An element, with how long it lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lasting {
    /// It.
    pub element: Encoded,
    /// Before this it does not end by itself; `None`: never.
    pub until: Option<Instant>,
}

impl Listing {
    /// Begins a list, in the calling thread's namespace; `None` when the kernel has no nf_tables.
    ///
    /// # Errors
    /// [`Error`].
    pub fn begin(table: Table<'_>, set: &str) -> Result<Option<Self>, Error> {
        let what = format!("list the elements of set {set:?} of table {table} in nf_tables");
        let Some(mut socket) = Socket::open("an nf_tables")? else { return Ok(None) };
        let (sequence, written) = (socket.next(), Instant::now());
        socket.send(&set::list_elements(table, set).numbered(sequence).into_bytes(), &what)?;
        Ok(Some(Self { socket, sequence, what, written, has_ended: false }))
    }

    /// The next elements, some hundreds; `None` when all were told. A set that is not there, or is no more, has no elements.
    ///
    /// # Errors
    /// [`Error`], also without `CAP_NET_ADMIN`.
    pub fn next_piece(&mut self) -> Result<Option<Vec<Lasting>>, Error> {
        if self.has_ended {
            return Ok(None);
        }
        let Self { socket, sequence, what, written, has_ended } = self;
        let (since, mut elements) = (*written, Vec::new());
        *written = Instant::now();
        let read = socket.receive_some(what, *sequence, |answer| {
            if let Some(code) = answer.code() {
                *has_ended = true;
                return end(what, answer, code).map(|_| ());
            }
            let read = set::read_lasting(answer.bytes.get(HEADERS..).unwrap_or_default());
            elements.extend(read.map(|(element, left)| {
                let until = left.and_then(|it| since.checked_add(it));
                Lasting { element, until }
            }));
            Ok(())
        });
        match read {
            Err(error) if error.errno() == Some(Errno::ENOENT) => {}
            read => read?,
        }
        Ok(Some(elements))
    }
}
