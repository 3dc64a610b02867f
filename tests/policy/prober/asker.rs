//! What sends probes out of one address, all at once.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::SockProtocol;

use super::{Protocol, Question};
use lab::slowed;
use lab::sockets::{begin_tcp, raw, udp};
use lab::wire::{LONGEST, echo_request, read_echo_reply, read_init_ack, sctp_init};

/// For so long nothing must be heard, after whatever was heard last, where that is what is expected: by all who ask at
/// once, since how fast the machine is those tell who are answered.
const SILENCE: Duration = Duration::from_millis(250);
/// How long one look for answers lasts at most.
const LOOK: u16 = 20;

/// Asks all, and says of each whether it was answered. `port` is where all of it comes from: another one each
/// time, so that no known connection answers for a new one. Stops early
/// when all expected answers are there, those of others too, of whom `waiting` counts who still waits for some, and it
/// was silent for a while.
pub(super) fn ask(
    from: IpAddr,
    questions: &[Question],
    port: u16,
    patience: Duration,
    waiting: &AtomicUsize,
) -> Vec<bool> {
    let mut asker = Asker::begin(from, questions, port);
    let (started, silence) = (Instant::now(), slowed(SILENCE));
    let (mut count, mut last) = (0, started);
    let is_silence_expected = questions.iter().any(|it| !it.expected);
    let mut all_heard = false;
    loop {
        asker.look();
        let heard = asker.answered.iter().filter(|it| **it).count();
        let is_heard = |(it, answered): (&Question, &bool)| *answered || !it.expected;
        if !all_heard && questions.iter().zip(&asker.answered).all(is_heard) {
            all_heard = true;
            waiting.fetch_sub(1, Ordering::Relaxed);
        }
        if heard > count || waiting.load(Ordering::Relaxed) > 0 {
            (count, last) = (heard, Instant::now());
        }
        let quiet = !is_silence_expected || last.elapsed() >= silence;
        if all_heard && quiet || started.elapsed() >= patience {
            return asker.answered;
        }
    }
}

struct Asker {
    is_ipv4: bool,
    port: u16,
    udp: UdpSocket,
    sctp: UdpSocket,
    icmp: UdpSocket,
    tcp: Vec<(usize, TcpStream)>,
    answered: Vec<bool>,
    first_token: u64,
}

impl Asker {
    fn begin(from: IpAddr, questions: &[Question], port: u16) -> Self {
        let is_ipv4 = from.is_ipv4();
        let icmp = if is_ipv4 { SockProtocol::Icmp } else { SockProtocol::IcmpV6 };
        let mut asker = Self {
            is_ipv4,
            port,
            udp: udp(SocketAddr::new(from, port)),
            sctp: raw(from, SockProtocol::Sctp),
            icmp: raw(from, icmp),
            tcp: Vec::new(),
            answered: vec![false; questions.len()],
            first_token: questions.first().map_or(0, |it| it.token),
        };
        for (index, question) in questions.iter().enumerate() {
            // What cannot be sent (no route) is not answered.
            _ = asker.send(from, index, question);
        }
        asker
    }

    fn send(&mut self, from: IpAddr, index: usize, question: &Question) -> io::Result<()> {
        let Question { to, token, .. } = *question;
        let address = SocketAddr::new(to.ip(), 0);
        match question.protocol {
            Protocol::Tcp => {
                let from = SocketAddr::new(from, self.port);
                self.tcp.push((index, begin_tcp(from, to)?));
            }
            Protocol::Udp => _ = self.udp.send_to(&token.to_be_bytes(), to)?,
            Protocol::Sctp => {
                let init = sctp_init(self.port, to.port(), u32::try_from(token).unwrap());
                self.sctp.send_to(&init, address)?;
            }
            Protocol::Echo => {
                let request = echo_request(self.is_ipv4, self.port, token);
                self.icmp.send_to(&request, address)?;
            }
        }
        Ok(())
    }

    fn look(&mut self) {
        let heard = [&self.udp, &self.sctp, &self.icmp].map(AsFd::as_fd);
        let mut polled: Vec<_> =
            heard.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        let streams = self.tcp.iter();
        polled.extend(streams.map(|(_, it)| PollFd::new(it.as_fd(), PollFlags::POLLOUT)));
        poll(&mut polled, PollTimeout::from(LOOK)).unwrap();
        let ready: Vec<_> = polled.iter().map(|it| it.any() == Some(true)).collect();
        let mut states = ready[3..].iter();
        let answered = &mut self.answered;
        self.tcp.retain(|(index, stream)| {
            let is_over = states.next() == Some(&true);
            if is_over {
                answered[*index] = matches!(stream.take_error(), Ok(None));
            }
            !is_over
        });
        self.read();
    }

    /// Between opening a raw socket and binding it, it hears what others are answered: only what
    /// carries a token of our own counts.
    fn read(&mut self) {
        let mut buffer = [0; LONGEST];
        let mut tokens = Vec::new();
        while let Ok(length) = self.udp.recv(&mut buffer) {
            tokens.extend(buffer[..length].try_into().map(u64::from_be_bytes));
        }
        while let Ok(length) = self.sctp.recv(&mut buffer) {
            tokens.extend(read_init_ack(self.is_ipv4, &buffer[..length]).map(u64::from));
        }
        while let Ok(length) = self.icmp.recv(&mut buffer) {
            tokens.extend(read_echo_reply(self.is_ipv4, &buffer[..length]));
        }
        for token in tokens {
            let index = token.checked_sub(self.first_token).map(usize::try_from);
            if let Some(answered) = index.and_then(|it| self.answered.get_mut(it.ok()?)) {
                *answered = true;
            }
        }
    }
}
