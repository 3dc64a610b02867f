//! What comes through bandwidth's limits, by iperf3.

use std::fs;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::contestant::Contestant;
use crate::lane::{Bench, Lane, Pod};
use crate::work::{BANDWIDTH, EGRESS_RATE, INGRESS_RATE};

const PORT: &str = "5201";
/// That port as a listening socket's in `/proc/net/tcp`.
const LISTENING: &str = ":1451 00000000:0000 0A";
const PATIENCE: Duration = Duration::from_secs(5);

/// What way packets take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ToPod,
    FromPod,
}

impl Way {
    /// Both.
    pub(crate) const ALL: [Self; 2] = [Self::ToPod, Self::FromPod];

    /// Bits a second that are asked for.
    pub(crate) const fn asked(self) -> u64 {
        match self {
            Self::ToPod => INGRESS_RATE,
            Self::FromPod => EGRESS_RATE,
        }
    }
}

/// What came through one way, as shares of what was asked for.
#[derive(Debug)]
pub(crate) struct Rate {
    pub(crate) contestant: Contestant,
    pub(crate) way: Way,
    shares: Vec<f64>,
}

impl Rate {
    /// The median.
    pub(crate) fn median(&self) -> Option<f64> {
        measuring::median(&self.shares)
    }

    /// The least and the most.
    pub(crate) fn range(&self) -> Option<(f64, f64)> {
        let least = self.shares.iter().copied().min_by(f64::total_cmp)?;
        Some((least, self.shares.iter().copied().max_by(f64::total_cmp)?))
    }
}

/// Sends for `seconds` each way, `times` times in turns, through a pod of each suite.
pub(crate) fn run(bench: &Bench, times: usize, seconds: u32) -> Vec<Rate> {
    let mut first = Vec::new();
    let mut rates = Vec::new();
    let mut sites = Vec::new();
    for contestant in [Contestant::Go, Contestant::Podwire] {
        let mut lane = Lane::new(bench, contestant, BANDWIDTH, &mut first);
        let pod = lane.pod();
        lane.call("ADD", &pod);
        sites.push((lane, pod));
        rates.extend(Way::ALL.map(|way| Rate { contestant, way, shares: Vec::new() }));
    }
    for _ in 0..times {
        for rate in &mut rates {
            let of = |(lane, _): &&(Lane<'_>, Pod)| lane.contestant == rate.contestant;
            let (lane, pod) = sites.iter().find(of).expect("both are there");
            rate.shares.push(measure(lane, pod, rate.way, seconds) / rate.way.asked() as f64);
        }
    }
    for (lane, pod) in &sites {
        lane.call("DEL", pod);
        lane.must_be_as_at_first();
    }
    drop((sites, first));
    bench.settle();
    rates
}

/// Bits a second that are received.
fn measure(lane: &Lane<'_>, pod: &Pod, way: Way, seconds: u32) -> f64 {
    let address = pod.address();
    pod.enter();
    let mut server = serve(address);
    lane.enter();
    let seconds = seconds.to_string();
    let address = address.to_string();
    // The first second is not counted: senders find their pace, and a bucket is full at first.
    let mut client = Command::new("timeout");
    client.args(["30", "iperf3", "--json", "--omit", "1", "--time", &seconds]);
    client.args(["--client", &address, "--port", PORT]);
    if way == Way::FromPod {
        client.arg("--reverse");
    }
    let output = client.output().expect("timeout is of coreutils");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let rate = report["end"]["sum_received"]["bits_per_second"].as_f64();
    // It has ended by itself, unless there was no client.
    let _ = server.kill();
    server.wait().expect("it is our child");
    rate.unwrap_or_else(|| panic!("iperf3: {output:?}"))
}

/// A server for one client, listening.
fn serve(address: Ipv4Addr) -> Child {
    let mut command = Command::new("iperf3");
    command.args(["--server", "--one-off", "--bind", &address.to_string(), "--port", PORT]);
    command.stdout(Stdio::null()).stdin(Stdio::null());
    let server = command.spawn().expect("iperf3 is needed");
    let started = Instant::now();
    let sockets = format!("/proc/{}/net/tcp", server.id());
    while !fs::read_to_string(&sockets).is_ok_and(|text| text.contains(LISTENING)) {
        assert!(started.elapsed() < PATIENCE, "iperf3 does not listen");
        sleep(Duration::from_millis(5));
    }
    server
}
