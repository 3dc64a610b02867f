//! Opening files with as few system calls as can be.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;

/// Opens `path`, closed on exec. By `openat`, because musl's `open` follows up with an `fcntl`.
///
/// # Errors
/// As `openat`.
pub(crate) fn open(path: &Path, flags: OFlag, mode: u32) -> io::Result<File> {
    let mode = Mode::from_bits_truncate(mode);
    Ok(File::from(openat(AT_FDCWD, path, flags | OFlag::O_CLOEXEC, mode)?))
}
