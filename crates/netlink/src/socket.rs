//! The socket: requests out, answers in.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_MULTIPART};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket as SystemSocket, SocketAddr};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::answer::Answer;
use crate::datagram::{DUMP_ATTEMPTS, RECEIVE_BUFFER, Received, messages};
use crate::request::Message;
use crate::{Error, Request};

/// Everything that the kernel answers is queued when the request returns; this only bounds what
/// should never happen.
const ANSWER_TIMEOUT_MS: u16 = 10_000;
/// So many requests are sent at once: more refusals than about 250 would not fit the queue.
const BATCH: usize = 64;

/// An rtnetlink socket of the namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    socket: SystemSocket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// What the kernel answered to a list of requests.
#[derive(Debug, Default)]
struct Answers {
    objects: Vec<Answer>,
    refusal: Option<Error>,
    interrupted: bool,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open() -> Result<Self, Error> {
        let failed = |source| Error::Socket { what: "open a netlink socket".into(), source };
        let socket = SystemSocket::new(NETLINK_ROUTE).map_err(failed)?;
        socket.set_ext_ack(true).map_err(failed)?;
        socket.set_cap_ack(true).map_err(failed)?;
        // Since Linux 4.20; older kernels filter nothing, and the typed verbs filter again.
        match socket.set_netlink_get_strict_chk(true) {
            Err(error) if error.raw_os_error() != Some(Errno::ENOPROTOOPT as i32) => {
                return Err(failed(error));
            }
            _ => {}
        }
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(RECEIVE_BUFFER) })
    }

    fn socket_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Carries out `requests` in order, in one system call. All are tried, whatever becomes of
    /// the others.
    ///
    /// # Errors
    /// The first refusal, or what the socket says.
    pub fn execute(&mut self, requests: &[Request]) -> Result<(), Error> {
        match self.exchange(requests)?.refusal {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Carries out `requests`, of which the last asks for one object, and returns what was told;
    /// nothing when the object is not there.
    pub(crate) fn execute_and_get(&mut self, requests: &[Request]) -> Result<Vec<Answer>, Error> {
        let answers = self.exchange(requests)?;
        match answers.refusal {
            Some(error) => Err(error),
            None => Ok(answers.objects),
        }
    }

    /// Lists what `request` asks for, again when the list was interrupted by a change.
    pub(crate) fn dump(&mut self, request: &Request) -> Result<Vec<Answer>, Error> {
        for _ in 0..DUMP_ATTEMPTS {
            let answers = self.exchange(std::slice::from_ref(request))?;
            match answers.refusal {
                Some(error) => return Err(error),
                None if answers.interrupted => {}
                None => return Ok(answers.objects),
            }
        }
        Err(Error::Interrupted { what: request.what.clone() })
    }

    fn exchange(&mut self, requests: &[Request]) -> Result<Answers, Error> {
        let mut answers = Answers::default();
        for batch in requests.chunks(BATCH) {
            self.exchange_batch(batch, &mut answers)?;
        }
        Ok(answers)
    }

    fn exchange_batch(&mut self, requests: &[Request], answers: &mut Answers) -> Result<(), Error> {
        let Some(last) = requests.last() else { return Ok(()) };
        let first_sequence = self.sequence.wrapping_add(1);
        let mut out = Vec::with_capacity(512);
        for (index, request) in requests.iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            // A question answers for itself; a change is only known to be made when acknowledged.
            let acknowledged = index + 1 == requests.len() && !is_question(request);
            request.append_to(&mut out, self.sequence, acknowledged);
        }
        let failed = |source| Error::Socket { what: last.what.clone(), source };
        self.socket.send_to(&out, &SocketAddr::new(0, 0), 0).map_err(failed)?;
        while !self.receive(requests, first_sequence, answers)? {}
        Ok(())
    }

    /// Reads one datagram; whether it ended the answer to the last request.
    fn receive(
        &mut self,
        requests: &[Request],
        first_sequence: u32,
        answers: &mut Answers,
    ) -> Result<bool, Error> {
        let Some(last) = requests.last() else { return Ok(true) };
        let failed = |source| Error::Socket { what: last.what.clone(), source };
        self.buffer.clear();
        let flags = libc_flags::DONT_WAIT | libc_flags::TRUNCATION;
        let length = match self.socket.recv(&mut self.buffer, flags) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if wait_readable(self.socket_fd(), ANSWER_TIMEOUT_MS).map_err(failed)? {
                    return Ok(false);
                }
                return Err(failed(io::ErrorKind::TimedOut.into()));
            }
            result => result.map_err(failed)?,
        };
        if length > self.buffer.len() {
            return Err(answer_error(last, format!("{length} bytes in one message")));
        }
        for received in messages(&self.buffer) {
            let received = received.map_err(|error| answer_error(last, error.to_string()))?;
            let index = received.sequence.wrapping_sub(first_sequence) as usize;
            // An answer to an earlier call that was given up is not ours.
            let Some(request) = requests.get(index) else { continue };
            let is_last = index + 1 == requests.len();
            if take(&received, request, answers)? && is_last {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Takes in one message that answers `request`; whether it ended the answer.
fn take(received: &Received<'_>, request: &Request, answers: &mut Answers) -> Result<bool, Error> {
    answers.interrupted |= received.flags & NLM_F_DUMP_INTR != 0;
    let is_whole = received.flags & NLM_F_MULTIPART == 0;
    let read = Answer::read(received.kind, received.body());
    if let Some(object) = read.map_err(|problem| answer_error(request, problem.into()))? {
        answers.objects.push(object);
        return Ok(is_whole);
    }
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(received.bytes)
        .map_err(|error| answer_error(request, error.to_string()))?;
    let mut refuse = |code: i32, explanation: String| {
        let errno = Errno::from_raw(code.saturating_abs());
        if code != 0 && !request.tolerated.contains(&errno) && answers.refusal.is_none() {
            let what = request.what.clone();
            answers.refusal = Some(Error::Refused { what, explanation, errno });
        }
    };
    match message.payload {
        NetlinkPayload::InnerMessage(inner) => {
            answers.objects.push(Answer::Other(inner));
            return Ok(is_whole);
        }
        NetlinkPayload::Error(error) => {
            let code = error.code.map_or(0, std::num::NonZeroI32::get);
            refuse(code, received.explanation());
        }
        NetlinkPayload::Done(done) => refuse(done.code, String::new()),
        NetlinkPayload::Overrun(_) => {
            return Err(answer_error(request, "the answer was lost (overrun)".into()));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn is_question(request: &Request) -> bool {
    request.flags & NLM_F_DUMP == NLM_F_DUMP
        || matches!(
            request.message,
            Message::Route(RouteNetlinkMessage::GetLink(_) | RouteNetlinkMessage::GetRoute(_))
                | Message::GetForwarding { .. }
        )
}

fn answer_error(request: &Request, problem: String) -> Error {
    Error::Answer { what: request.what.clone(), problem }
}

/// Waits until something can be read; whether there is something.
pub(crate) fn wait_readable(socket: BorrowedFd<'_>, milliseconds: u16) -> io::Result<bool> {
    let mut waiting = [PollFd::new(socket, PollFlags::POLLIN)];
    match poll(&mut waiting, PollTimeout::from(milliseconds)) {
        Ok(count) => Ok(count > 0),
        // The caller asks again.
        Err(Errno::EINTR) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

mod libc_flags {
    use nix::sys::socket::MsgFlags;

    pub(super) const DONT_WAIT: i32 = MsgFlags::MSG_DONTWAIT.bits();
    pub(super) const TRUNCATION: i32 = MsgFlags::MSG_TRUNC.bits();
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> i32 {
        self.socket.as_raw_fd()
    }
}
