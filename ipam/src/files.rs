//! Opening files with as few system calls as can be.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;

/// Has an open never wait for the other end of a pipe that stands where a file should be.
pub(crate) const NO_WAIT: OFlag = OFlag::O_NONBLOCK;

/// Opens `path`, closed on exec, without waiting. By `openat`, because musl's `open` follows up with
/// an `fcntl`.
///
/// # Errors
/// As `openat`.
pub(crate) fn open(path: &Path, flags: OFlag, mode: u32) -> io::Result<File> {
    let mode = Mode::from_bits_truncate(mode);
    Ok(File::from(openat(AT_FDCWD, path, flags | NO_WAIT | OFlag::O_CLOEXEC, mode)?))
}
