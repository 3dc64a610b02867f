//! Feeding a program and reading what it prints, at the same time: neither side can make the other
//! wait for ever.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Child;
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What a program prints may take this much memory at most: sets of a million members print some 50 MB.
const OUTPUT_LIMIT: usize = 128 << 20;

/// Writes `input`, as far as the program reads it, and reads both outputs until both are closed.
pub(crate) fn hold(
    child: &mut Child,
    input: &[u8],
    deadline: Option<Instant>,
) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut stdin = Input::new(child.stdin.take().map(OwnedFd::from), input)?;
    let mut stdout = Stream::new(child.stdout.take().map(OwnedFd::from));
    let mut stderr = Stream::new(child.stderr.take().map(OwnedFd::from));
    // Most inputs fit the pipe: then there is nothing to wait for.
    stdin.write()?;
    while stdout.file.is_some() || stderr.file.is_some() {
        let files = [
            (&stdin.file, PollFlags::POLLOUT),
            (&stdout.file, PollFlags::POLLIN),
            (&stderr.file, PollFlags::POLLIN),
        ];
        let mut waiting: Vec<PollFd<'_>> = files
            .into_iter()
            .filter_map(|(file, event)| Some(PollFd::new(file.as_ref()?.as_fd(), event)))
            .collect();
        match poll(&mut waiting, remaining(deadline)?) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<i32> = waiting
            .iter()
            .filter(|fd| fd.any().unwrap_or(true))
            .map(|fd| fd.as_fd().as_raw_fd())
            .collect();
        drop(waiting);
        if stdin.file.as_ref().is_some_and(|file| ready.contains(&file.as_raw_fd())) {
            stdin.write()?;
        }
        stdout.read_if(&ready)?;
        stderr.read_if(&ready)?;
    }
    Ok((stdout.bytes, stderr.bytes))
}

fn remaining(deadline: Option<Instant>) -> io::Result<PollTimeout> {
    let Some(deadline) = deadline else { return Ok(PollTimeout::NONE) };
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    // Rounded up, so that the last wait does not spin.
    Ok(PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX))
}

/// What is still to be written; closed when all is, or when nobody reads it any more.
struct Input<'a> {
    file: Option<File>,
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn new(descriptor: Option<OwnedFd>, rest: &'a [u8]) -> io::Result<Self> {
        if let Some(descriptor) = &descriptor {
            fcntl(descriptor, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(Self { file: descriptor.map(File::from), rest })
    }

    /// Writes as much as there is room for.
    fn write(&mut self) -> io::Result<()> {
        while let Some(file) = self.file.as_mut().filter(|_| !self.rest.is_empty()) {
            match file.write(self.rest) {
                Ok(count) => self.rest = self.rest.get(count..).unwrap_or_default(),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(()),
                    io::ErrorKind::Interrupted => {}
                    // It reads no more, which is its own affair.
                    io::ErrorKind::BrokenPipe => self.rest = &[],
                    _ => return Err(error),
                },
            }
        }
        self.file = None;
        Ok(())
    }
}

struct Stream {
    file: Option<File>,
    bytes: Vec<u8>,
}

impl Stream {
    fn new(descriptor: Option<OwnedFd>) -> Self {
        Self { file: descriptor.map(File::from), bytes: Vec::new() }
    }

    fn read_if(&mut self, ready: &[i32]) -> io::Result<()> {
        let Some(file) = self.file.as_mut().filter(|file| ready.contains(&file.as_raw_fd())) else {
            return Ok(());
        };
        let mut buffer = [0; 8192];
        let count = file.read(&mut buffer)?;
        if self.bytes.len() + count > OUTPUT_LIMIT {
            return Err(io::Error::other("it printed more than 128 MiB"));
        }
        self.bytes.extend(buffer.iter().take(count));
        if count == 0 {
            self.file = None;
        }
        Ok(())
    }
}
