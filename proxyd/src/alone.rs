//! One proxyd writes for a node at a time: of two, each would put right what the other writes.
//!
//! Who writes holds a socket that has a name and no file. Such names are of a network namespace, as the tables are, and go with the
//! process, however that ends.

use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::time::sleep;

/// The socket's name; `ss -xlp` shows it, with an `@` before it.
pub(crate) const NAME: &str = "podwire-proxyd";
/// How often it is looked whether the other has ended.
const PAUSE: Duration = Duration::from_millis(200);

/// Why it cannot be said whether another runs.
#[derive(Debug, thiserror::Error)]
#[error("cannot hold the socket @{NAME}, by which one proxyd keeps others from writing")]
pub(crate) struct Error(#[from] io::Error);

/// Keeps others from writing for as long as it is there.
#[derive(Debug)]
pub(crate) struct Alone {
    _socket: UnixDatagram,
}

impl Alone {
    /// In the namespace of the calling thread; `None`: another writes there.
    pub(crate) fn now() -> Result<Option<Self>, Error> {
        let address = SocketAddr::from_abstract_name(NAME)?;
        match UnixDatagram::bind_addr(&address) {
            Ok(socket) => Ok(Some(Self { _socket: socket })),
            Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error.into()),
        }
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
