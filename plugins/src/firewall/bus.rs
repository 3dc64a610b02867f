//! D-Bus, as far as firewalld is to be called by it: methods that take texts, one after the other, each within a time.
//!
//! A library would have brought more than the rest of the plugin (see DESIGN.md).

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Where the system's bus is unless `DBUS_SYSTEM_BUS_ADDRESS` says otherwise (D-Bus specification).
const SOCKET: &str = "/var/run/dbus/system_bus_socket";
const ADDRESS: &str = "DBUS_SYSTEM_BUS_ADDRESS";
/// firewalld may be loading its configuration.
const PATIENCE: Duration = Duration::from_secs(20);
/// Nothing that is asked for is longer; the bus itself allows 128 MiB.
const LONGEST: usize = 1 << 16;
/// The part of a message with a fixed size: up to the length of the header's fields.
const FIXED: usize = 16;
const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const PROTOCOL: u8 = 1;
/// The order of bytes in messages: our own.
const ENDIAN: u8 = if cfg!(target_endian = "little") { b'l' } else { b'B' };

const FIELD_PATH: u8 = 1;
const FIELD_INTERFACE: u8 = 2;
const FIELD_MEMBER: u8 = 3;
const FIELD_ERROR_NAME: u8 = 4;
const FIELD_REPLY_SERIAL: u8 = 5;
const FIELD_DESTINATION: u8 = 6;
const FIELD_SIGNATURE: u8 = 8;

/// Why a method was not called, or not answered as it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BusError {
    #[error("{ADDRESS}={0:?}: only unix:path=FILE can be used")]
    Address(String),
    #[error("cannot connect to {}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("the bus does not let us in: {0:?}")]
    NotLetIn(String),
    #[error("the connection to the bus failed")]
    Connection(#[source] io::Error),
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Timeout,
    #[error("cannot read its answer: {0}")]
    Answer(&'static str),
    #[error("{name}: {text}")]
    Refused {
        /// The error's name.
        name: String,
        /// What it says.
        text: String,
    },
}

impl BusError {
    /// Whether there is no bus on this node.
    pub(super) fn is_missing(&self) -> bool {
        let kinds = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
        matches!(self, Self::Connect { source, .. } if kinds.contains(&source.kind()))
    }

    fn of(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Connection(error),
        }
    }
}

/// A method's call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    /// Whose method it is.
    pub(super) destination: &'a str,
    /// Of which object.
    pub(super) path: &'a str,
    /// Of which interface.
    pub(super) interface: &'a str,
    /// Its name.
    pub(super) member: &'a str,
    /// What it is given: texts.
    pub(super) arguments: &'a [&'a str],
}

impl<'a> Call<'a> {
    /// A method of the bus itself.
    pub(super) fn to_bus(member: &'a str, arguments: &'a [&'a str]) -> Self {
        Self { destination: BUS, path: BUS_PATH, interface: BUS, member, arguments }
    }
}

/// A connection to the system's bus.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
}

impl Bus {
    /// Connects, as who we are.
    pub(super) fn connect() -> Result<Self, BusError> {
        let path = socket(std::env::var(ADDRESS).ok())?;
        let stream = UnixStream::connect(&path);
        Self::over(stream.map_err(|source| BusError::Connect { path, source })?)
    }

    fn over(stream: UnixStream) -> Result<Self, BusError> {
        let mut bus = Self { stream, serial: 0 };
        let deadline = Instant::now() + PATIENCE;
        bus.stream.set_write_timeout(Some(PATIENCE)).map_err(BusError::of)?;
        // The socket tells the bus who we are; so the answer to its question for a name is empty.
        bus.stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n").map_err(BusError::of)?;
        loop {
            let line = bus.line(deadline)?;
            match line.split(' ').next() {
                Some("DATA") => {}
                Some("OK") => break,
                _ => return Err(BusError::NotLetIn(line)),
            }
        }
        bus.call(&Call::to_bus("Hello", &[]))?;
        Ok(bus)
    }

    /// Calls a method and waits for the answer.
    pub(super) fn call(&mut self, call: &Call<'_>) -> Result<Answer, BusError> {
        let deadline = Instant::now() + PATIENCE;
        self.serial = self.serial.wrapping_add(1);
        let message = message(call, self.serial).ok_or(BusError::Answer("too long a call"))?;
        self.stream.write_all(&message).map_err(BusError::of)?;
        loop {
            let answer = self.receive(deadline)?;
            // Signals come without having been asked for.
            if answer.to != Some(self.serial) {
                continue;
            }
            return match answer.kind {
                METHOD_RETURN => Ok(answer),
                ERROR => Err(BusError::Refused {
                    text: answer.text().unwrap_or_default().to_owned(),
                    name: answer.error,
                }),
                _ => continue,
            };
        }
    }

    fn receive(&mut self, deadline: Instant) -> Result<Answer, BusError> {
        let mut fixed = [0; FIXED];
        self.read(&mut fixed, deadline)?;
        let [ENDIAN, _, _, PROTOCOL, ..] = fixed else {
            return Err(BusError::Answer("it is in another order of bytes, or of another version"));
        };
        let length = |place| number(&fixed, place).and_then(|it| usize::try_from(it).ok());
        let (body, fields) = length(4).zip(length(12)).ok_or(BusError::Answer("no lengths"))?;
        let rest = fields.checked_next_multiple_of(8).and_then(|it| it.checked_add(body));
        let rest = rest.filter(|it| *it <= LONGEST).ok_or(BusError::Answer("it is too long"))?;
        let mut bytes = fixed.to_vec();
        bytes.resize(FIXED + rest, 0);
        self.read(bytes.get_mut(FIXED..).unwrap_or_default(), deadline)?;
        Answer::read(&bytes, fields).ok_or(BusError::Answer("its header is cut off"))
    }

    /// A line of the conversation before messages.
    fn line(&mut self, deadline: Instant) -> Result<String, BusError> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.read(&mut byte, deadline)?;
            line.extend(byte);
            if line.len() > LONGEST {
                return Err(BusError::Answer("too long a line"));
            }
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn read(&mut self, mut room: &mut [u8], deadline: Instant) -> Result<(), BusError> {
        while !room.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(BusError::Timeout);
            }
            self.stream.set_read_timeout(Some(left)).map_err(BusError::of)?;
            match self.stream.read(room) {
                Ok(0) => return Err(BusError::Connection(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => room = room.get_mut(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(BusError::of(error)),
            }
        }
        Ok(())
    }
}

/// The file of the bus' socket.
fn socket(address: Option<String>) -> Result<PathBuf, BusError> {
    let Some(address) = address.filter(|it| !it.is_empty()) else { return Ok(SOCKET.into()) };
    // Several addresses stand behind each other, and keys of each as well.
    let paths = address.split(';').filter_map(|it| it.strip_prefix("unix:"));
    let mut paths = paths.flat_map(|it| it.split(',')).filter_map(|it| it.strip_prefix("path="));
    match paths.next() {
        Some(path) if !path.contains('%') => Ok(path.into()),
        _ => Err(BusError::Address(address)),
    }
}

/// An answer, or what else comes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    kind: u8,
    /// The call that it answers.
    to: Option<u32>,
    /// The name of an error.
    error: String,
    body: Vec<u8>,
}

impl Answer {
    /// Reads a whole message, of whose header the fields have this length.
    fn read(bytes: &[u8], fields: usize) -> Option<Self> {
        let end = FIXED.checked_add(fields)?;
        let body = bytes.get(end.checked_next_multiple_of(8)?..)?.to_vec();
        let mut answer = Self { kind: *bytes.get(1)?, to: None, error: String::new(), body };
        let mut place = FIXED;
        while place < end {
            // A field is a structure: its number, the signature of its value, and that.
            place = place.next_multiple_of(8);
            let field = *bytes.get(place)?;
            let signature = *bytes.get(place + 2)?;
            place += 4;
            match signature {
                b'u' => {
                    let value = number(bytes, place.next_multiple_of(4))?;
                    if field == FIELD_REPLY_SERIAL {
                        answer.to = Some(value);
                    }
                    place = place.next_multiple_of(4) + 4;
                }
                b's' | b'o' => {
                    place = place.next_multiple_of(4);
                    let value = text(bytes, place)?;
                    if field == FIELD_ERROR_NAME {
                        value.clone_into(&mut answer.error);
                    }
                    place += 4 + value.len() + 1;
                }
                b'g' => place += 2 + usize::from(*bytes.get(place)?),
                _ => return None,
            }
        }
        Some(answer)
    }

    /// Its text, if it begins with one.
    fn text(&self) -> Option<&str> {
        text(&self.body, 0)
    }

    /// Its value of true or false.
    pub(super) fn boolean(&self) -> Result<bool, BusError> {
        match number(&self.body, 0) {
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            _ => Err(BusError::Answer("it is neither true nor false")),
        }
    }
}

/// The number of 32 bits at a place.
fn number(bytes: &[u8], place: usize) -> Option<u32> {
    bytes.get(place..place.checked_add(4)?)?.try_into().ok().map(u32::from_ne_bytes)
}

/// The text at a place, behind its length.
fn text(bytes: &[u8], place: usize) -> Option<&str> {
    let length = usize::try_from(number(bytes, place)?).ok()?;
    let start = place.checked_add(4)?;
    std::str::from_utf8(bytes.get(start..start.checked_add(length)?)?).ok()
}

/// A call as it is sent; `None` when it has no room.
fn message(call: &Call<'_>, serial: u32) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    for argument in call.arguments {
        push_text(&mut body, argument)?;
    }
    let signature = "s".repeat(call.arguments.len());
    let mut bytes = vec![ENDIAN, METHOD_CALL, 0, PROTOCOL];
    bytes.extend(u32::try_from(body.len()).ok()?.to_ne_bytes());
    bytes.extend(serial.to_ne_bytes());
    // The length of the fields, which is known behind them.
    bytes.extend([0; 4]);
    let texts = [
        (FIELD_PATH, b'o', call.path),
        (FIELD_DESTINATION, b's', call.destination),
        (FIELD_INTERFACE, b's', call.interface),
        (FIELD_MEMBER, b's', call.member),
    ];
    for (field, kind, value) in texts {
        align(&mut bytes, 8);
        bytes.extend([field, 1, kind, 0]);
        push_text(&mut bytes, value)?;
    }
    if !signature.is_empty() {
        align(&mut bytes, 8);
        bytes.extend([FIELD_SIGNATURE, 1, b'g', 0, u8::try_from(signature.len()).ok()?]);
        bytes.extend(signature.as_bytes());
        bytes.push(0);
    }
    let fields = u32::try_from(bytes.len() - FIXED).ok()?;
    bytes.get_mut(12..FIXED)?.copy_from_slice(&fields.to_ne_bytes());
    align(&mut bytes, 8);
    bytes.extend(body);
    (bytes.len() <= LONGEST).then_some(bytes)
}

fn push_text(bytes: &mut Vec<u8>, text: &str) -> Option<()> {
    align(bytes, 4);
    bytes.extend(u32::try_from(text.len()).ok()?.to_ne_bytes());
    bytes.extend(text.as_bytes());
    bytes.push(0);
    Some(())
}

fn align(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

#[cfg(test)]
mod tests;
