//! What rules log.

use std::net::{IpAddr, UdpSocket};
use std::thread::sleep;
use std::time::{Duration, Instant};

use netlink::nflog::{Log, Packet};
use netlink::{Event, Layer4, Request, Socket, Tuple};
use nix::errno::Errno;

use crate::routed::{addresses, routed};
use crate::space::{
    PLAIN, bridge, cidr, heard, move_away, namespace, nft, numbered_veth, run, socket, told,
};

const GROUP: u16 = 4242;
const RULES: &str = "ct state new log prefix \"denied\" group 4242\n";

fn packets(log: &mut Log, count: usize) -> Vec<Packet> {
    told(heard(log, Log::receive, |events| events.len() >= count))
}

#[test]
fn logged_packets_are_received() {
    let routed = routed(RULES);
    let (mut log, links) = {
        let _entered = routed.router.enter().unwrap();
        (Log::open(GROUP).unwrap(), Socket::open().unwrap().links().unwrap())
    };
    let index = |name| links.iter().find(|link| link.name == name).map(|link| link.index);
    for addresses in addresses() {
        let from = {
            let _entered = routed.client.enter().unwrap();
            let sender = UdpSocket::bind((addresses.client, 0)).unwrap();
            sender.send_to(&[7; 1000], addresses.service()).unwrap();
            sender.local_addr().unwrap()
        };
        let [packet] = packets(&mut log, 1).try_into().unwrap();
        assert_eq!(packet.prefix, "denied");
        assert_eq!((packet.input, packet.output), (index("veth1"), index("veth2")));
        assert_eq!((packet.physical_input, packet.physical_output), (None, None));
        assert_eq!(packet.payload.len(), 128);
        let layer4 = Layer4::Ports { source: from.port(), destination: 8080 };
        let wanted =
            Tuple { source: from.ip(), destination: addresses.server, protocol: 17, layer4 };
        assert_eq!(Tuple::of_packet(&packet.payload), Some(wanted));
    }
}

#[test]
fn ports_of_bridges_are_told() {
    let netns = namespace();
    let mut host = socket(&netns);
    let bridge = bridge(&mut host);
    let [first, second] = [1, 2].map(|number| {
        let container = namespace();
        let near = numbered_veth(&mut host, number, &container, Some(bridge.index));
        let mut inside = socket(&container);
        let far = inside.link_by_name("eth0").unwrap().unwrap().index;
        let address = cidr(&format!("10.1.0.{number}/24"));
        let add = Request::add_address(far, "eth0", address, PLAIN);
        inside.execute(&[Request::set_up(far, "eth0"), add]).unwrap();
        (container, near.index)
    });
    let mut log = {
        let _entered = netns.enter().unwrap();
        let forward = "type filter hook forward priority -150;";
        nft(&format!("table ip logging {{ chain forward {{ {forward} {RULES} }}\n}}"));
        Log::open(GROUP).unwrap()
    };
    {
        let _entered = first.0.enter().unwrap();
        run("ping", &["-q", "-c1", "-W5", "10.1.0.2"], "");
    }
    let [packet] = packets(&mut log, 1).try_into().unwrap();
    assert_eq!((packet.input, packet.output), (Some(bridge.index), Some(bridge.index)));
    assert_eq!(packet.physical_input, Some(first.1));
    assert_eq!(packet.physical_output, Some(second.1));
    let tuple = Tuple::of_packet(&packet.payload).unwrap();
    assert!(matches!(tuple.layer4, Layer4::Icmp { kind: 8, code: 0, id } if id != 0));
}

/// A namespace of its own that logs what it sends to itself.
fn talk_to_myself() -> UdpSocket {
    move_away();
    let mut socket = Socket::open().unwrap();
    socket.execute(&[Request::set_up(1, "lo")]).unwrap();
    let output = "type filter hook output priority 0;";
    nft(&format!(
        "table ip logging {{ chain output {{ {output} meta l4proto udp log group 4242\n}}\n}}"
    ));
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

#[test]
fn packets_that_were_missed_are_told_as_missed() {
    let sender = talk_to_myself();
    let mut log = Log::open(GROUP).unwrap();
    let to = sender.local_addr().unwrap();
    assert_eq!(log.receive().unwrap(), None);
    for _ in 0..5000 {
        sender.send_to(&[0; 200], to).unwrap();
    }
    assert_eq!(log.receive().unwrap(), Some(vec![Event::Missed]));
    let later = heard(&mut log, Log::receive, |events| {
        sender.send_to(&[0; 200], to).unwrap();
        events.iter().any(|event| matches!(event, Event::Heard(_)))
    });
    let packet = |event| match event {
        Event::Heard(packet) => Some(packet),
        Event::Missed => None,
    };
    let packet: Packet = later.into_iter().find_map(packet).unwrap();
    assert_eq!(packet.prefix, "");
    assert_eq!((packet.input, packet.output), (None, Some(1)));
    let tuple = Tuple::of_packet(&packet.payload).unwrap();
    assert_eq!(tuple.source, IpAddr::from([127, 0, 0, 1]));
}

#[test]
fn a_group_has_one_receiver() {
    move_away();
    let first = Log::open(GROUP).unwrap();
    let error = Log::open(GROUP).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EPERM));
    assert!(error.to_string().contains("group 4242: has it another receiver"), "{error}");
    Log::open(GROUP + 1).unwrap();
    drop(first);
    // Another test's program holds what is open here until it is executed.
    let started = Instant::now();
    while let Err(error) = Log::open(GROUP) {
        assert!(started.elapsed() < Duration::from_secs(10), "{error}");
        sleep(Duration::from_millis(10));
    }
}
