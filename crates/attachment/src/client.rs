//! The plugin's side of the socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::{Answer, Error, LINE_LIMIT, Request};

/// Asks policyd at `path` for something and waits for its answer, for at most `wait` in all.
///
/// # Errors
/// [`Error::Away`], [`Error::Late`]; [`Error::Json`] and [`Error::Invalid`] for what is no answer.
pub fn ask(path: &Path, request: &Request, wait: Duration) -> Result<Answer, Error> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Late(wait),
        _ => Error::Away { socket: path.to_owned(), source },
    };
    let deadline = Instant::now() + wait;
    let stream = open(path, wait).map_err(failed)?;
    let mut stream = Timed { stream, deadline };
    stream.write_all(&request.encode()).map_err(failed)?;
    let mut line = Vec::new();
    BufReader::new(stream).take(LINE_LIMIT).read_until(b'\n', &mut line).map_err(failed)?;
    if !line.ends_with(b"\n") {
        return Err(failed(io::ErrorKind::UnexpectedEof.into()));
    }
    Answer::decode(&line)
}

/// Connects. The standard library cannot bound that: it waits where a listener's queue is full.
fn open(path: &Path, wait: Duration) -> io::Result<UnixStream> {
    let socket: OwnedFd =
        socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let seconds = wait.as_secs().try_into().unwrap_or(i32::MAX);
    let wait = TimeVal::new(seconds.into(), wait.subsec_micros().into());
    setsockopt(&socket, sockopt::SendTimeout, &wait)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket.into())
}

/// A stream whose every operation ends at the deadline.
struct Timed {
    stream: UnixStream,
    deadline: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::thread;

    const SHORT: Duration = Duration::from_millis(200);
    const LONG: Duration = Duration::from_secs(20);

    /// Asks somebody who, once connected, does `answer`.
    fn asked(wait: Duration, answer: impl FnOnce(UnixStream) + Send) -> Result<Answer, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sock");
        let listener = UnixListener::bind(&path).unwrap();
        thread::scope(|scope| {
            scope.spawn(move || answer(listener.accept().unwrap().0));
            ask(&path, &Request::Status {}, wait)
        })
    }

    #[test]
    fn an_answer_in_pieces_is_read() {
        let answer = asked(LONG, |mut stream| {
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            assert_eq!(Request::decode(line.as_bytes()).unwrap(), Request::Status {});
            for part in (Answer::Done {}).encode().chunks(7) {
                stream.write_all(part).unwrap();
                thread::sleep(Duration::from_millis(1));
            }
        });
        assert_eq!(answer.unwrap(), Answer::Done {});
    }

    #[test]
    fn who_does_not_listen_is_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sock");
        assert!(matches!(ask(&path, &Request::Status {}, LONG), Err(Error::Away { .. })));
        drop(UnixListener::bind(&path).unwrap());
        assert!(matches!(ask(&path, &Request::Status {}, LONG), Err(Error::Away { .. })));
    }

    #[test]
    fn who_goes_without_an_answer_is_away() {
        assert!(matches!(asked(LONG, drop), Err(Error::Away { .. })));
        let half = |mut stream: UnixStream| stream.write_all(b"{\"version\":1,").unwrap();
        assert!(matches!(asked(LONG, half), Err(Error::Away { .. })));
    }

    #[test]
    fn who_says_nothing_or_never_ends_is_late() {
        let hold = |stream: UnixStream| _ = BufReader::new(stream).read_to_end(&mut Vec::new());
        assert!(matches!(asked(SHORT, hold), Err(Error::Late(_))));
        // A byte now and then does not prolong the wait.
        let drip = |mut stream: UnixStream| {
            while stream.write_all(b" ").is_ok() {
                thread::sleep(Duration::from_millis(10));
            }
        };
        assert!(matches!(asked(SHORT, drip), Err(Error::Late(_))));
    }

    #[test]
    fn a_full_queue_is_not_waited_for_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sock");
        let listener =
            socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None).unwrap();
        nix::sys::socket::bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let _first = UnixStream::connect(&path).unwrap();
        let error = ask(&path, &Request::Status {}, SHORT).unwrap_err();
        assert!(matches!(error, Error::Late(_)), "{error}");
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let flood = |mut stream: UnixStream| {
            let chunk = vec![b' '; 1 << 16];
            while stream.write_all(&chunk).is_ok() {}
        };
        assert!(matches!(asked(LONG, flood), Err(Error::Away { .. })));
    }
}
