//! System calls.

use std::os::fd::{BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;
use nix::unistd::{read, write};

use crate::text::Text;

/// The three streams that every process starts with. The standard library's own would allocate.
const STDIN: BorrowedFd<'static> = stream(0);
/// Where the result goes.
pub(crate) const STDOUT: BorrowedFd<'static> = stream(1);
const STDERR: BorrowedFd<'static> = stream(2);

const fn stream(number: i32) -> BorrowedFd<'static> {
    #[expect(unsafe_code, reason = "descriptors 0 to 2 are only known by their numbers")]
    // SAFETY: nobody closes them.
    unsafe {
        BorrowedFd::borrow_raw(number)
    }
}

/// What went wrong: the floor only says so and ends.
pub(crate) struct Failure {
    step: &'static str,
    errno: Errno,
}

impl Failure {
    pub(crate) const fn new(step: &'static str, errno: Errno) -> Self {
        Self { step, errno }
    }

    /// For `map_err`.
    pub(crate) const fn at(step: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self { step, errno }
    }

    pub(crate) fn print(&self) {
        let text = Text::of(&["floor: ", self.step, ": ", self.errno.desc(), "\n"]);
        // There is nobody left to tell.
        let _ = write(STDERR, text.as_str().as_bytes());
    }
}

/// Opens a file.
pub(crate) fn open(path: &str, flags: OFlag, step: &'static str) -> Result<OwnedFd, Failure> {
    openat(AT_FDCWD, path, flags | OFlag::O_CLOEXEC, Mode::empty()).map_err(Failure::at(step))
}

/// Reads the configuration to its end, as every plugin must.
pub(crate) fn read_stdin() -> Result<(), Failure> {
    let mut buffer = [0; 4096];
    while read(STDIN, &mut buffer).map_err(Failure::at("read stdin"))? > 0 {}
    Ok(())
}

/// Moves this process into a network namespace.
pub(crate) fn enter(netns: BorrowedFd<'_>) -> Result<(), Failure> {
    setns(netns, CloneFlags::CLONE_NEWNET).map_err(Failure::at("enter the network namespace"))
}

/// Opens the namespace of the container.
pub(crate) fn open_netns(path: &str) -> Result<OwnedFd, Failure> {
    open(path, OFlag::O_RDONLY, "open CNI_NETNS")
}

/// Writes a kernel parameter below `net/`, given in parts.
pub(crate) fn set(parts: [&str; 3], value: &str) -> Result<(), Failure> {
    let file = open(key(parts).as_str(), OFlag::O_WRONLY, "open a sysctl")?;
    write(file, value.as_bytes()).map_err(Failure::at("write a sysctl"))?;
    Ok(())
}

/// Reads a kernel parameter and writes it unless it has the value.
pub(crate) fn ensure(parts: [&str; 3], value: &str) -> Result<(), Failure> {
    let file = open(key(parts).as_str(), OFlag::O_RDONLY, "open a sysctl")?;
    let mut buffer = [0; 16];
    let length = read(file, &mut buffer).map_err(Failure::at("read a sysctl"))?;
    if buffer.get(..length).is_some_and(|text| text.starts_with(value.as_bytes())) {
        return Ok(());
    }
    set(parts, value)
}

fn key([before, name, after]: [&str; 3]) -> Text {
    Text::of(&["/proc/sys/net/", before, name, after])
}

/// Random bytes, for names and hardware addresses.
pub(crate) fn random() -> Result<[u8; 16], Failure> {
    let mut bytes = [0; 16];
    #[expect(unsafe_code, reason = "nix has no getrandom")]
    // SAFETY: the kernel writes no more bytes than there are.
    let length = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if length == 16 { Ok(bytes) } else { Err(Failure::new("getrandom", Errno::last())) }
}
