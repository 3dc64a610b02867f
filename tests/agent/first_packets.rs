//! A pod that sends, or is sent to, from its first microsecond, against a default-deny: nothing
//! arrives.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::Duration;

use lab::sockets::{begin_tcp, raw, udp};
use lab::wire::{echo_request, sctp_init};
use lab::{Pod, Reply};
use nix::sys::socket::SockProtocol;
use serde_json::{Value, json};

use crate::node::{PATIENCE, PolicedNode};

const PORT: u16 = 8080;
const UNSPECIFIED: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];

/// For a gateway that was not there at first the kernel asks a second later again: by then all that
/// is sent is on its way.
const NEIGHBOURS: Duration = Duration::from_millis(2500);

/// Who sends without end, since before there was anything to send by.
struct Noise {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Noise {
    fn start(pod: &Pod, targets: &[IpAddr]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, targets) = (Arc::clone(&stop), targets.to_vec());
        let thread = pod.spawn(move || {
            let senders: Vec<_> = targets.iter().map(|it| Sender::to(*it)).collect();
            while !stopped.load(Ordering::Relaxed) {
                senders.iter().for_each(Sender::send);
                sleep(Duration::from_micros(200));
            }
        });
        Self { stop, thread }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the sender works");
    }
}

struct Sender {
    target: IpAddr,
    from: IpAddr,
    udp: UdpSocket,
    sctp: UdpSocket,
    icmp: UdpSocket,
}

impl Sender {
    fn to(target: IpAddr) -> Self {
        let from = UNSPECIFIED[usize::from(target.is_ipv6())];
        let icmp = if target.is_ipv4() { SockProtocol::Icmp } else { SockProtocol::IcmpV6 };
        Self {
            target,
            from,
            udp: udp(SocketAddr::new(from, 0)),
            sctp: raw(from, SockProtocol::Sctp),
            icmp: raw(from, icmp),
        }
    }

    /// While there is no route, nothing of this is sent.
    fn send(&self) {
        let at = SocketAddr::new(self.target, PORT);
        let address = SocketAddr::new(self.target, 0);
        _ = begin_tcp(SocketAddr::new(self.from, 0), at);
        _ = self.udp.send_to(b"noise", at);
        _ = self.sctp.send_to(&sctp_init(20_000, PORT, 7), address);
        _ = self.icmp.send_to(&echo_request(self.target.is_ipv4(), 7, 7), address);
    }
}

/// What arrives at a pod, seen by raw sockets. Neighbour and listener discovery do not count.
struct Arrivals(Vec<(SockProtocol, IpAddr, UdpSocket)>);

impl Arrivals {
    fn at(pod: &Pod) -> Self {
        use SockProtocol::{Icmp, IcmpV6, Sctp, Tcp, Udp};
        let kinds = [[Tcp, Udp, Sctp, Icmp], [Tcp, Udp, Sctp, IcmpV6]];
        let all = UNSPECIFIED.into_iter().zip(kinds);
        let all = all.flat_map(|(any, kinds)| kinds.map(|kind| (kind, any)));
        Self(pod.enter(|| all.map(|(kind, any)| (kind, any, raw(any, kind))).collect()))
    }

    /// How much of each kind came since the last time.
    fn take(&self) -> Vec<usize> {
        // What the last sender sent is on its way no longer: a veth delivers at once.
        sleep(Duration::from_millis(5));
        let count = |(kind, any, socket): &(SockProtocol, IpAddr, UdpSocket)| {
            let mut buffer = [0; 2048];
            let mut count = 0;
            while let Ok(length) = socket.recv(&mut buffer) {
                let header = if any.is_ipv4() { usize::from(buffer[0] & 15) * 4 } else { 0 };
                let packet = &buffer[header..length];
                count += usize::from(match kind {
                    SockProtocol::Icmp => packet[0] == 8,
                    SockProtocol::IcmpV6 => packet[0] == 128,
                    _ => true,
                });
            }
            count
        };
        self.0.iter().map(count).collect()
    }
}

struct Scene {
    node: PolicedNode,
    arrivals: Arrivals,
    targets: Vec<IpAddr>,
    /// The addresses of a pod that is sent to.
    listener: Vec<IpAddr>,
}

impl Scene {
    fn new(is_bridged: bool) -> Self {
        let names = ["server"];
        let node = if is_bridged { PolicedNode::bridged(&names) } else { PolicedNode::new(&names) };
        node.write(
            "pod-noisy",
            &json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "noisy", "labels": {"app": "noisy"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}),
        );
        let arrivals = Arrivals::at(node.space("server"));
        let targets = node.addresses("server").to_vec();
        let listener = node.addresses("server").iter().map(|it| far_along(*it)).collect();
        Self { node, arrivals, targets, listener }
    }

    /// Nothing leaves or reaches the noisy pod from now on. The server is as open as can be: that
    /// the pod's own rules are there in time is what is to be seen.
    fn deny(&self) {
        self.node.write(
            "deny",
            &json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "deny"}, "spec": {"policyTypes": ["Ingress", "Egress"],
                "podSelector": {"matchLabels": {"app": "noisy"}}}}),
        );
        // A policy that selects nobody of this node yet shows in no rule.
        sleep(Duration::from_millis(500));
    }

    fn call(&self, command: &str, pod: &Pod, conf: &Value) -> Reply {
        self.node.call("noisy", command, pod, conf)
    }

    /// A pod comes, sends all the time, and goes; `meanwhile` is done when it has been added.
    fn round(&self, meanwhile: impl FnOnce()) -> Vec<usize> {
        let pod = self.node.node.pod("noisy");
        pod.sh("ip link set lo up");
        let noise = Noise::start(&pod, &self.targets);
        let wired = self.node.conf();
        let result = self.call("ADD", &pod, &wired).ok();
        let policy = json!({"cniVersion": "1.0.0", "name": "net", "type": "podwire-policy",
            "timeout": 1000, "prevResult": result});
        let _ = self.call("ADD", &pod, &policy).ok();
        meanwhile();
        sleep(Duration::from_millis(20));
        noise.end();
        assert!(self.call("DEL", &pod, &policy).succeeded());
        assert!(self.call("DEL", &pod, &wired).succeeded());
        self.arrivals.take()
    }

    /// A pod comes, is sent to all the time, and goes.
    fn round_of_listening(&self) -> Vec<usize> {
        let pod = self.node.node.pod("noisy");
        pod.sh("ip link set lo up");
        let arrivals = Arrivals::at(&pod);
        let noise = Noise::start(self.node.space("server"), &self.listener);
        let mut wired = self.node.conf();
        wired["runtimeConfig"] = json!({"ips": self.listener});
        let result = self.call("ADD", &pod, &wired).ok();
        let policy = json!({"cniVersion": "1.0.0", "name": "net", "type": "podwire-policy",
            "timeout": 1000, "prevResult": result});
        let _ = self.call("ADD", &pod, &policy).ok();
        sleep(NEIGHBOURS);
        noise.end();
        let arrived = arrivals.take();
        // The answers to the server are not what the next round is about.
        self.arrivals.take();
        assert!(self.call("DEL", &pod, &policy).succeeded());
        assert!(self.call("DEL", &pod, &wired).succeeded());
        arrived
    }

    fn must_be_silent(&self, what: &str, rounds: usize) {
        for round in 0..rounds {
            let wait = if round % 10 == 0 { NEIGHBOURS } else { Duration::from_millis(10) };
            assert_eq!(
                self.round(|| sleep(wait)),
                [0; 8],
                "policyd {what}, round {round}: TCP, UDP, SCTP, echo"
            );
        }
    }
}

/// An address of the same range that no other pod is given.
fn far_along(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(it) => Ipv4Addr::from_bits(it.to_bits() + 100).into(),
        IpAddr::V6(it) => Ipv6Addr::from_bits(it.to_bits() + 100).into(),
    }
}

fn nothing_gets_out_or_in_before_the_rules_are_there(is_bridged: bool) {
    let mut scene = Scene::new(is_bridged);
    // All of it would arrive.
    let open = scene.round(|| sleep(NEIGHBOURS));
    assert!(open.iter().all(|count| *count > 0), "{open:?}");
    let open = scene.round_of_listening();
    assert!(open.iter().all(|count| *count > 0), "{open:?}");
    scene.deny();
    scene.must_be_silent("present", 25);
    assert_eq!(scene.round_of_listening(), [0; 8], "sent to while policyd is present");
    let measured = scene.node.metric("policyd_attachment_to_kernel_seconds_count");
    assert_eq!(measured, 28, "how long each pod waited for its rules");
    scene.node.kill();
    scene.must_be_silent("absent", 25);
    assert_eq!(scene.round_of_listening(), [0; 8], "sent to while policyd is absent");
    for _ in 0..5 {
        let node = &scene.node;
        let late = scene.round(|| {
            let mut daemon = node.begin();
            daemon.wait_until(PATIENCE, || node.rules().contains("default/noisy"));
        });
        assert_eq!(late, [0; 8], "policyd late");
    }
    // Killed somewhere in the middle of the calls.
    for round in 0..10 {
        let mut daemon = scene.node.begin();
        scene.node.wait("policyd", |it| it.is_ready());
        let arrived = thread::scope(|scope| {
            let adding = scope.spawn(|| scene.round(|| ()));
            sleep(Duration::from_millis(5 + 4 * round));
            daemon.kill();
            adding.join().expect("the pod comes and goes")
        });
        assert_eq!(arrived, [0; 8], "policyd dying, round {round}");
    }
    scene.node.start();
    scene.node.clean_up();
}

#[test]
fn routed() {
    nothing_gets_out_or_in_before_the_rules_are_there(false);
}

#[test]
fn bridged() {
    nothing_gets_out_or_in_before_the_rules_are_there(true);
}
