//! The conntrack client against flows between namespaces.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use netlink::conntrack::{Change, Changes, Client, End, Filter, Flow, Happened, Mark, Outcome};
use netlink::{Event, Layer4, Tuple};

use crate::routed::{Addresses, Routed, addresses, routed};
use crate::space::{nft, run};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SECONDS: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(200);
/// The bit of these tests, and one that belongs to somebody else.
const CUT: Mark = Mark { value: 0x4, mask: 0x4 };
const UNCUT: Mark = Mark { value: 0, mask: 0x4 };
const FOREIGN: u32 = 0x100;
/// New flows get the foreign bit, marked ones are dropped both ways.
const RULES: &str = "ct mark & 0x4 == 0x4 drop\n\
                     ct state new ct mark set ct mark | 0x100\n";

fn client(routed: &Routed) -> Client {
    let _entered = routed.router.enter().unwrap();
    Client::open().unwrap().expect("the kernel has netfilter")
}

fn list(client: &mut Client, filter: &Filter) -> Vec<Flow> {
    let mut flows = Vec::new();
    client.flows(filter, |flow| flows.push(*flow)).unwrap();
    flows
}

fn ports(from: SocketAddr, to: SocketAddr, protocol: u8) -> Tuple {
    let layer4 = Layer4::Ports { source: from.port(), destination: to.port() };
    Tuple { source: from.ip(), destination: to.ip(), protocol, layer4 }
}

/// The only flow of a protocol.
fn of_protocol(flows: &[Flow], protocol: u8) -> Flow {
    let mut found = flows.iter().filter(|flow| flow.original.protocol == protocol);
    let flow = found.next().expect("a flow of the protocol");
    assert_eq!(found.next(), None);
    *flow
}

/// A connection through the service: both its ends.
fn tcp(routed: &Routed, addresses: &Addresses) -> (TcpStream, TcpStream) {
    let listener = {
        let _entered = routed.server.enter().unwrap();
        TcpListener::bind(addresses.server()).unwrap()
    };
    let _entered = routed.client.enter().unwrap();
    let near = TcpStream::connect_timeout(&addresses.service(), SECONDS).unwrap();
    (near, listener.accept().unwrap().0)
}

/// Two sockets, of which the second has heard of the first through the service.
fn udp(routed: &Routed, addresses: &Addresses) -> (UdpSocket, UdpSocket) {
    let far = {
        let _entered = routed.server.enter().unwrap();
        UdpSocket::bind(addresses.server()).unwrap()
    };
    let _entered = routed.client.enter().unwrap();
    let near = UdpSocket::bind(SocketAddr::new(addresses.client, 0)).unwrap();
    near.connect(addresses.service()).unwrap();
    near.send(b"hello").unwrap();
    far.set_read_timeout(Some(SECONDS)).unwrap();
    let (_, from) = far.recv_from(&mut [0; 16]).unwrap();
    far.connect(from).unwrap();
    (near, far)
}

fn ping(routed: &Routed, address: IpAddr) {
    let _entered = routed.client.enter().unwrap();
    run("ping", &["-q", "-c1", "-W5", &address.to_string()], "");
}

#[test]
fn flows_are_listed_as_they_are() {
    let routed = routed(RULES);
    let mut client = client(&routed);
    for addresses in addresses() {
        let filter = Filter::all(addresses.client.is_ipv4());
        let (near, _far) = tcp(&routed, &addresses);
        let (asking, answering) = udp(&routed, &addresses);
        ping(&routed, addresses.server);
        let flows = list(&mut client, &filter);

        let flow = of_protocol(&flows, TCP);
        let from = near.local_addr().unwrap();
        assert_eq!(flow.original, ports(from, addresses.service(), TCP));
        assert_eq!(flow.reply, ports(addresses.server(), from, TCP));
        assert!(flow.status.has_reply() && flow.status.is_destination_translated());
        assert_eq!((flow.mark, flow.zone), (FOREIGN, 0));

        let flow = of_protocol(&flows, UDP);
        assert_eq!(flow.original, ports(asking.local_addr().unwrap(), addresses.service(), UDP));
        assert!(!flow.status.has_reply() && flow.status.is_destination_translated());
        answering.send(b"hello").unwrap();
        asking.set_read_timeout(Some(SECONDS)).unwrap();
        asking.recv(&mut [0; 16]).unwrap();
        let flows = list(&mut client, &filter);
        assert!(of_protocol(&flows, UDP).status.has_reply());

        let (protocol, question, answer) =
            if addresses.client.is_ipv4() { (1, 8, 0) } else { (58, 128, 129) };
        let flow = flows
            .iter()
            .find(|flow| matches!(flow.original.layer4, Layer4::Icmp { kind, .. } if kind == question))
            .expect("an echo");
        assert_eq!(flow.original.protocol, protocol);
        let Layer4::Icmp { kind, id, .. } = flow.reply.layer4 else { panic!("{flow:?}") };
        assert_eq!(kind, answer);
        assert_eq!(flow.original.layer4, Layer4::Icmp { kind: question, code: 0, id });
        assert_ne!(id, 0);
        assert_eq!((flow.original.source, flow.reply.source), (addresses.client, addresses.server));
        assert!(flow.status.has_reply() && !flow.status.is_destination_translated());
    }
}

/// Whether bytes written at one end come out at the other.
fn arrives(mut from: &TcpStream, mut to: &TcpStream) -> bool {
    from.write_all(b"x").unwrap();
    to.set_read_timeout(Some(MOMENT)).unwrap();
    to.read_exact(&mut [0]).is_ok()
}

#[test]
fn a_mark_is_seen_by_rules_and_leaves_other_bits_alone() {
    let routed = routed(RULES);
    let mut client = client(&routed);
    for addresses in addresses() {
        let filter = Filter::all(addresses.client.is_ipv4());
        let (near, far) = tcp(&routed, &addresses);
        let (asking, answering) = udp(&routed, &addresses);
        ping(&routed, addresses.server);
        assert!(arrives(&far, &near));
        let before = list(&mut client, &filter);
        for flow in &before {
            assert_eq!(client.set_mark(flow, CUT).unwrap(), Outcome::Done);
        }
        let marked = list(&mut client, &Filter { mark: Some(CUT), ..filter });
        assert_eq!(marked.len(), before.len());
        let tcp = of_protocol(&marked, TCP);
        assert_eq!(tcp.mark, FOREIGN | CUT.value);
        assert!(!arrives(&far, &near) && !arrives(&near, &far));
        answering.send(b"hello").unwrap();
        asking.set_read_timeout(Some(MOMENT)).unwrap();
        asking.recv(&mut [0; 16]).unwrap_err();

        assert_eq!(client.set_mark(&tcp, UNCUT).unwrap(), Outcome::Done);
        let still = list(&mut client, &Filter { mark: Some(CUT), ..filter });
        assert_eq!(still.len(), before.len() - 1);
        assert_eq!(of_protocol(&list(&mut client, &filter), TCP).mark, FOREIGN);
        // What was lost is sent again.
        far.set_read_timeout(Some(SECONDS)).unwrap();
        (&far).read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn flows_are_found_by_their_ends() {
    let routed = routed(RULES);
    let mut client = client(&routed);
    for addresses in addresses() {
        let _connection = tcp(&routed, &addresses);
        // A flow of the other direction, and of the router itself.
        {
            let _entered = routed.server.enter().unwrap();
            run("ping", &["-q", "-c1", "-W5", &addresses.client.to_string()], "");
        }
        let mut found = |end| {
            let all = Filter::all(addresses.client.is_ipv4());
            let flows = list(&mut client, &Filter { end: Some(end), ..all });
            let of = |protocol| flows.iter().any(|flow| flow.original.protocol == protocol);
            (of(TCP), of(1) || of(58))
        };
        assert_eq!(found(End::Source(addresses.client)), (true, false));
        assert_eq!(found(End::Destination(addresses.server)), (true, false));
        assert_eq!(found(End::Source(addresses.server)), (false, true));
        assert_eq!(found(End::Destination(addresses.client)), (false, true));
        assert_eq!(found(End::Destination(addresses.service)), (false, false));
        assert_eq!(found(End::OriginalDestination(addresses.service)), (true, false));
        assert_eq!(found(End::OriginalDestination(addresses.client)), (false, true));
        assert_eq!(found(End::OriginalDestination(addresses.server)), (false, false));
    }
}

#[test]
fn a_flow_that_has_gone_is_told() {
    let routed = routed(RULES);
    let mut client = client(&routed);
    for addresses in addresses() {
        let _connection = tcp(&routed, &addresses);
        let all = Filter::all(addresses.client.is_ipv4());
        let flow = of_protocol(&list(&mut client, &all), TCP);
        let family = if all.is_ipv4 { "ipv4" } else { "ipv6" };
        {
            let _entered = routed.router.enter().unwrap();
            run("conntrack", &["-D", "-f", family, "-p", "tcp"], "");
        }
        assert_eq!(client.set_mark(&flow, CUT).unwrap(), Outcome::FlowGone);
        let left = list(&mut client, &all);
        assert!(left.iter().all(|flow| flow.original.protocol != TCP), "{left:?}");
    }
}

/// Flows of the three transports with ports, from two clients each to two ports of two services.
fn fill(routed: &Routed, addresses: &Addresses) {
    let lines: String = ["tcp", "udp", "sctp"]
        .iter()
        .flat_map(|protocol| [80, 53].map(|port| (protocol, port)))
        .flat_map(|(protocol, port)| {
            let Addresses { client, server, service } = *addresses;
            let state = match *protocol {
                "tcp" => "--state ESTABLISHED",
                "sctp" => "--state ESTABLISHED --orig-vtag 1 --reply-vtag 2",
                _ => "",
            };
            [(1000, service), (1001, server)].map(|(from, to)| {
                format!(
                    "-I -p {protocol} -s {client} -d {to} --sport {from} --dport {port} -t 600 {state}\n"
                )
            })
        })
        .collect();
    let _entered = routed.router.enter().unwrap();
    run("conntrack", &["-R", "-"], &lines);
}

#[test]
fn flows_are_forgotten_by_protocol_port_end_and_mark() {
    const SCTP: u8 = 132;
    let routed = routed("");
    let mut client = client(&routed);
    for addresses in addresses() {
        fill(&routed, &addresses);
        let all = Filter::all(addresses.client.is_ipv4());
        assert_eq!(list(&mut client, &all).len(), 12);
        let counted = |client: &mut Client, filter| list(client, &filter).len();
        assert_eq!(counted(&mut client, Filter { protocol: Some(SCTP), ..all }), 4);
        assert_eq!(counted(&mut client, Filter { port: Some(53), ..all }), 6);
        let dns = Filter { protocol: Some(UDP), port: Some(53), ..all };
        assert_eq!(counted(&mut client, dns), 2);
        let end = Some(End::OriginalDestination(addresses.service));
        assert_eq!(client.forget_all(&Filter { end, ..dns }).unwrap(), 1);
        let left = list(&mut client, &dns);
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].original.destination, addresses.server);
        let from = Some(End::Source(addresses.client));
        assert_eq!(client.forget_all(&Filter { end: from, ..dns }).unwrap(), 1);
        assert_eq!(client.forget_all(&dns).unwrap(), 0);
        assert_eq!(client.forget_all(&Filter { protocol: Some(SCTP), ..all }).unwrap(), 4);
        let flow = list(&mut client, &Filter { protocol: Some(TCP), port: Some(80), ..all })[0];
        // One that was there before it, with the same ends.
        let former = Flow { id: flow.id ^ 1, ..flow };
        assert_eq!(client.forget(&former).unwrap(), Outcome::FlowGone);
        assert_eq!(client.forget_each(&[former]).unwrap(), 0);
        assert_eq!(client.set_mark(&flow, CUT).unwrap(), Outcome::Done);
        assert_eq!(client.forget_all(&Filter { mark: Some(CUT), ..all }).unwrap(), 1);
        assert_eq!(client.forget(&flow).unwrap(), Outcome::FlowGone);
        assert_eq!(
            client.forget_all(&Filter { protocol: Some(TCP), port: Some(80), ..all }).unwrap(),
            1
        );
        // Two of UDP to another port, and two of TCP.
        assert_eq!(client.forget_all(&all).unwrap(), 4);
        assert_eq!(list(&mut client, &all), []);
    }
}

#[test]
fn many_flows_are_forgotten_and_those_that_have_ended_are_not_counted() {
    let routed = routed("");
    let mut client = client(&routed);
    for addresses in addresses() {
        let [from, to] = [addresses.client, addresses.service];
        let lines: String = (1..=1000)
            .map(|port| format!("-I -p udp -s {from} -d {to} --sport {port} --dport 53 -t 600\n"))
            .collect();
        let entered = routed.router.enter().unwrap();
        run("conntrack", &["-R", "-"], &lines);
        drop(entered);
        let all = Filter::all(from.is_ipv4());
        let flows = list(&mut client, &all);
        assert_eq!(flows.len(), 1000);
        // Some end meanwhile, the last of a message among them.
        for place in [0, 127, 128, 500, 999] {
            assert_eq!(client.forget(&flows[place]).unwrap(), Outcome::Done);
        }
        assert_eq!(client.forget_each(&flows).unwrap(), 995);
        assert_eq!(client.forget_each(&flows).unwrap(), 0);
        assert_eq!(client.forget_each(&[]).unwrap(), 0);
        assert_eq!(list(&mut client, &all), []);
    }
}

#[test]
fn flows_are_heard_as_they_begin_change_and_end() {
    let routed = routed(RULES);
    let mut client = client(&routed);
    let mut changes = {
        let _entered = routed.router.enter().unwrap();
        Changes::open().unwrap()
    };
    assert_eq!(changes.receive().unwrap(), None);
    let mut heard = || -> Vec<Change> {
        let events = std::iter::from_fn(|| changes.receive().unwrap()).flatten();
        let of_udp = events.filter_map(|event| match event {
            Event::Heard(change) => (change.flow.original.protocol == UDP).then_some(change),
            Event::Missed => panic!("nothing was too much"),
        });
        of_udp.collect()
    };
    for addresses in addresses() {
        let (asking, answering) = udp(&routed, &addresses);
        let original = ports(asking.local_addr().unwrap(), addresses.service(), UDP);
        let [began] = heard().try_into().unwrap();
        assert_eq!((began.happened, began.flow.original), (Happened::Began, original));
        assert_eq!((began.flow.mark, began.flow.reply.source), (FOREIGN, addresses.server));
        answering.send(b"hello").unwrap();
        asking.set_read_timeout(Some(SECONDS)).unwrap();
        asking.recv(&mut [0; 16]).unwrap();
        let changed = heard();
        let last = changed.last().expect("that it was answered");
        assert!(changed.iter().all(|it| it.happened == Happened::Changed));
        assert!(last.flow.status.has_reply() && last.flow.original == original);
        assert_eq!(client.set_mark(&last.flow, CUT).unwrap(), Outcome::Done);
        assert_eq!(heard().last().map(|it| it.flow.mark), Some(FOREIGN | CUT.value));
        assert_eq!(client.forget(&last.flow).unwrap(), Outcome::Done);
        let [ended] = heard().try_into().unwrap();
        assert_eq!((ended.happened, ended.flow.original), (Happened::Ended, original));
    }
}

#[test]
fn what_comes_of_a_forgotten_flow_begins_another() {
    let routed = routed(RULES);
    let mut client = client(&routed);
    for addresses in addresses() {
        let filter = Filter::all(addresses.client.is_ipv4());
        let (asking, _answering) = udp(&routed, &addresses);
        let flow = of_protocol(&list(&mut client, &filter), UDP);
        assert_eq!(client.set_mark(&flow, CUT).unwrap(), Outcome::Done);
        assert_eq!(client.forget(&flow).unwrap(), Outcome::Done);
        assert_eq!(client.forget(&flow).unwrap(), Outcome::FlowGone);
        let left = list(&mut client, &filter);
        assert!(left.iter().all(|flow| flow.original.protocol != UDP), "{left:?}");
        asking.send(b"again").unwrap();
        let begun = of_protocol(&list(&mut client, &filter), UDP);
        assert_eq!((begun.original, begun.mark), (flow.original, FOREIGN));
    }
}

#[test]
fn flows_of_other_zones_are_marked_and_forgotten_too() {
    let routed = routed(RULES);
    let mut client = client(&routed);
    {
        let _entered = routed.router.enter().unwrap();
        let first = "type filter hook prerouting priority -300;";
        nft(&format!("table inet zones {{ chain first {{ {first} ct zone set 7\n}}\n}}"));
    }
    let [addresses, _] = addresses();
    let _connection = tcp(&routed, &addresses);
    let flow = of_protocol(&list(&mut client, &Filter::all(true)), TCP);
    assert_eq!(flow.zone, 7);
    assert_eq!(client.set_mark(&flow, CUT).unwrap(), Outcome::Done);
    let flow = of_protocol(&list(&mut client, &Filter::all(true)), TCP);
    assert_eq!(flow.mark, FOREIGN | CUT.value);
    assert_eq!(client.forget(&flow).unwrap(), Outcome::Done);
    assert_eq!(list(&mut client, &Filter::all(true)), []);
}

#[test]
fn long_lists_are_read_to_their_end() {
    let routed = routed("");
    let mut client = client(&routed);
    let lines: String = (0..20_000)
        .map(|n: u32| {
            let port = 10_000 + n % 50_000;
            let (high, low) = (n / 50_000, n / 1000);
            format!("-I -p udp -s 10.1.{high}.{low} -d 10.1.2.2 --sport {port} --dport 53 -t 600\n")
        })
        .collect();
    let _entered = routed.router.enter().unwrap();
    run("conntrack", &["-R", "-"], &lines);
    let (mut count, mut of_one) = (0, 0);
    client.flows(&Filter::all(true), |_| count += 1).unwrap();
    assert_eq!(count, 20_000);
    let end = End::Source("10.1.0.7".parse().unwrap());
    client.flows(&Filter { end: Some(end), ..Filter::all(true) }, |_| of_one += 1).unwrap();
    assert_eq!(of_one, 1000);
    client.flows(&Filter::all(false), |flow| panic!("{flow:?}")).unwrap();
}
