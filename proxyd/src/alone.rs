//! One proxyd writes for a node at a time: of two, each would put right what the other writes.
//!
//! Who writes is the receiver of a group of netfilter's log (NFLOG) that nothing is logged to. A group has one receiver, which takes
//! `CAP_NET_ADMIN`; and groups are of a network namespace, as the tables are, and go with the process. A socket with a name in the
//! namespace does the same, but anybody may take its name: it serves where the kernel has no such log, or lets us do nothing.

use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use netlink::nflog::Log;
use netlink::nftables::Client;
use nix::errno::Errno;
use proxyd::nftables::table;
use tokio::time::sleep;

/// The group: none of those that people choose.
const GROUP: u16 = 28_792;
/// The socket's name; `ss -xlp` shows it, with an `@` before it.
const NAME: &str = "podwire-proxyd";
/// How often it is looked whether the other has ended.
const PAUSE: Duration = Duration::from_millis(200);

/// By what another one is known, for people.
pub(crate) const SIGN: &str =
    "NFLOG group 28792 has a receiver, see /proc/net/netfilter/nfnetlink_log, or @podwire-proxyd";

/// Why it cannot be said whether another runs.
#[derive(Debug, thiserror::Error)]
#[error("cannot hold the socket @{NAME}, by which one proxyd keeps others from writing")]
pub(crate) struct Error(#[from] io::Error);

/// Keeps others from writing for as long as it is there.
#[derive(Debug)]
pub(crate) struct Alone {
    _held: Held,
}

#[derive(Debug)]
enum Held {
    Group { _log: Log },
    Name { _socket: UnixDatagram },
}

impl Alone {
    /// In the namespace of the calling thread; `None`: another writes there.
    pub(crate) fn now() -> Result<Option<Self>, Error> {
        let held = match Log::open(GROUP) {
            Ok(log) => Some(Held::Group { _log: log }),
            // It is refused so, too, to who may do nothing.
            Err(error) if error.errno() == Some(Errno::EPERM) && may_read() => None,
            Err(_) => named()?.map(|socket| Held::Name { _socket: socket }),
        };
        Ok(held.map(|it| Self { _held: it }))
    }

    /// Waits for the end of whoever writes; each look in vain is told to `wait`.
    pub(crate) async fn later(mut wait: impl FnMut()) -> Result<Self, Error> {
        loop {
            if let Some(alone) = Self::now()? {
                return Ok(alone);
            }
            wait();
            sleep(PAUSE).await;
        }
    }
}

/// Whether the kernel lets us look at tables, which takes the same capability.
fn may_read() -> bool {
    let client = Client::open();
    client.is_ok_and(|it| it.is_some_and(|mut it| it.has_table(table(true)).is_ok()))
}

/// The socket with the name; `None`: another has it.
fn named() -> Result<Option<UnixDatagram>, Error> {
    match UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(NAME)?) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(error.into()),
    }
}
