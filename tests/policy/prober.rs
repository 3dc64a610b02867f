//! Real packets, very many at once: who is answered by whom.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use lab::slowed;

use crate::cluster::Cluster;

mod asker;
mod server;

pub(crate) use server::{Arrivals, Server};

/// How long answers are waited for the first time, and when what was not answered is asked again:
/// a packet that a busy machine lost is no denial.
const PATIENCE: [Duration; 3] =
    [Duration::from_millis(600), Duration::from_millis(1500), Duration::from_secs(4)];

/// What is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    /// A connection.
    Tcp,
    /// A datagram and its answer.
    Udp,
    /// INIT and INIT ACK.
    Sctp,
    /// An echo request and its reply, of the family's ICMP.
    Echo,
}

/// A packet that somebody sends and wants an answer to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Probe {
    /// Who sends it.
    pub(crate) from: String,
    /// From which address; of those of the family where it is unspecified.
    pub(crate) source: IpAddr,
    /// Where to.
    pub(crate) to: SocketAddr,
    /// What.
    pub(crate) protocol: Protocol,
}

impl fmt::Display for Probe {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, source, to, protocol } = self;
        write!(formatter, "{from} ({source}) > {to} {protocol:?}")
    }
}

#[derive(Debug, Clone)]
struct Question {
    /// Which of the probes it is.
    index: usize,
    to: SocketAddr,
    protocol: Protocol,
    expected: bool,
    /// Never the same twice, and of one asker in a row.
    token: u64,
}

/// Sends all probes, and tells of those with whom it did not go as expected: `true` is answered.
pub(crate) fn deviations(cluster: &Cluster, probes: &[(Probe, bool)]) -> Vec<String> {
    let mut open: Vec<usize> = (0..probes.len()).collect();
    let mut found = Vec::new();
    for patience in PATIENCE {
        let asked = round(cluster, probes, &open, slowed(patience));
        let arrived = std::mem::take(&mut *cluster.arrivals.lock().unwrap());
        open.clear();
        for (Question { index, expected, token, .. }, answered) in asked {
            match (expected, answered) {
                (true, false) => open.push(index),
                (false, true) => found.push(format!("let through: {}", probes[index].0)),
                (false, false) if arrived.contains(&token) => {
                    found.push(format!("arrived, though without an answer: {}", probes[index].0));
                }
                _ => {}
            }
        }
        if open.is_empty() {
            break;
        }
    }
    found.extend(open.iter().map(|index| format!("not let through: {}", probes[*index].0)));
    found
}

fn round(
    cluster: &Cluster,
    probes: &[(Probe, bool)],
    open: &[usize],
    patience: Duration,
) -> Vec<(Question, bool)> {
    let mut askers = BTreeMap::<_, Vec<Question>>::new();
    for index in open {
        let (Probe { from, source, to, protocol }, expected) = &probes[*index];
        let question =
            Question { index: *index, to: *to, protocol: *protocol, expected: *expected, token: 0 };
        askers.entry((from, *source)).or_default().push(question);
    }
    let (port, waiting) = (next_port(), &AtomicUsize::new(askers.len()));
    thread::scope(|scope| {
        let asking: Vec<_> = askers
            .into_iter()
            .map(|((from, source), mut questions)| {
                let first = TOKEN.fetch_add(questions.len() as u64, Ordering::Relaxed);
                (first..).zip(&mut questions).for_each(|(token, it)| it.token = token);
                let space =
                    cluster.space(from).unwrap_or_else(|| panic!("nobody is called {from}"));
                scope.spawn(move || {
                    let answered =
                        space.enter(|| asker::ask(source, &questions, port, patience, waiting));
                    questions.into_iter().zip(answered).collect::<Vec<_>>()
                })
            })
            .collect();
        asking.into_iter().flat_map(|it| it.join().unwrap()).collect()
    })
}

static TOKEN: AtomicU64 = AtomicU64::new(1);

/// A port that nobody has sent from yet.
fn next_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(10_000);
    // Below those that the kernel gives away, so that none is taken.
    let port = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(port < 32_768, "more rounds than there are ports");
    port
}
