//! Flows that nothing ends: they must not go on to who had the port before.

use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use lab::probe::{Protocol, Server, must_reach_at};
use lab::{Call, Pod};
use netlink::conntrack::{Client, Filter, Flow};
use serde_json::json;

use super::{PATIENCE, Site, at, both, mapping, servers, to};
use crate::network::{Guest, NODE4, NODE6, WORLD4, WORLD6};

by_both! {
    a_flow_follows_the_port_to_the_next_container
    flows_of_a_family_that_is_off_end
    flows_end_with_their_port_whatever_ends_it
    flows_to_other_hosts_go_on
}

/// A client that goes on with one flow whatever becomes of the container.
struct Asker(UdpSocket);

impl Asker {
    fn new(world: &Pod, address: &str) -> Self {
        let any = if address.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
        let socket = world.enter(|| UdpSocket::bind(any)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        socket.connect(at(address)).unwrap();
        Self(socket)
    }

    /// Whether an answer comes within the time.
    fn is_answered(&self, patience: Duration) -> bool {
        let started = Instant::now();
        let mut room = [0; 64];
        // What is late is no answer to what follows.
        while self.0.recv(&mut room).is_ok() {}
        while started.elapsed() < patience {
            // A refusal of the one before is told here.
            let _ = self.0.send(b"are you there?");
            if self.0.recv(&mut room).is_ok() {
                return true;
            }
        }
        false
    }
}

/// Flows of UDP have no end: they must not go on to a container that has gone.
fn a_flow_follows_the_port_to_the_next_container(backend: &'static str) {
    for site in Site::all(backend) {
        let world = site.network.world();
        for (address, is_ipv4) in [(NODE4, true), (NODE6, false)] {
            let client = Asker::new(&world, address);
            // Sent before anybody has published the port.
            assert!(!client.is_answered(Duration::from_millis(200)));
            let mut before: Option<Guest> = None;
            for name in ["one", "two", "three"] {
                let guest = site.network.guest(&format!("{name}{is_ipv4}"));
                if let Some(gone) = before.take() {
                    site.leave(&gone, &both());
                }
                site.publish(&guest, &both());
                let own = if is_ipv4 { &guest.v4 } else { &guest.v6 };
                let _servers = servers(&guest, own);
                assert!(client.is_answered(PATIENCE), "{} {address}: {name}", site.backend);
                before = Some(guest);
            }
            let last = before.expect("somebody came");
            site.leave(&last, &both());
            assert!(!client.is_answered(Duration::from_millis(200)));
        }
    }
}

/// How many flows of UDP the node tracks that lead to an address.
fn flows(site: &Site, address: &str) -> usize {
    let address: IpAddr = address.parse().expect("an address");
    let mut count = 0;
    site.network.node.enter(|| {
        let mut client = Client::open().expect("a socket").expect("the kernel tracks flows");
        let take = |flow: &Flow| {
            count += usize::from(flow.reply.source == address && flow.original.protocol == 17);
        };
        client.flows(&Filter::all(address.is_ipv4()), take).expect("flows are listed");
    });
    count
}

/// GC, a DEL that is told of no ports, an ADD that comes again without them, and whoever takes another port of a container
/// that has gone.
fn flows_end_with_their_port_whatever_ends_it(backend: &'static str) {
    let site = Site::bridge(backend);
    let world = site.network.world();
    let (one, two) = (site.network.guest("one"), site.network.guest("two"));
    let other = json!([mapping(Protocol::Tcp, 9090, 80)]);
    let all = json!([both().as_array().expect("a list").clone(), vec![other[0].clone()]].concat());
    let gc = || {
        let conf = json!({"cniVersion": "1.1.0", "name": "net1", "type": "portmap",
            "backend": backend, "cni.dev/valid-attachments": []});
        let call = Call::new("portmap", "GC").unset("CNI_CONTAINERID").unset("CNI_IFNAME");
        let _ = call.conf(&conf).run(&site.network.node, &site.network.podwire).ok();
    };
    let without_ports = || site.leave_ports(&one, &json!(null));
    let takeover = || {
        site.network.leave(&one);
        site.publish(&two, &other);
    };
    let again = || site.publish(&one, &other);
    let by_the_other = || {
        let other_backend = if backend == "iptables" { "nftables" } else { "iptables" };
        let _ = site.call("ADD", &one, &other, &json!({"backend": other_backend})).ok();
    };
    let moved = json!([mapping(Protocol::Udp, 8080, 81), mapping(Protocol::Udp, 8086, 87)]);
    let elsewhere = || site.publish(&one, &moved);
    let ends: [(&str, &dyn Fn()); 6] = [
        ("GC", &gc),
        ("DEL without ports", &without_ports),
        ("ADD again", &again),
        ("ADD again for other ports of the container", &elsewhere),
        ("ADD again by the other backend", &by_the_other),
        ("takeover", &takeover),
    ];
    let _servers = [&one.v4, &one.v6].map(|it| servers(&one, it));
    for (what, end) in ends {
        site.publish(&one, &all);
        for (address, to) in [(NODE4, &one.v4), (NODE6, &one.v6)] {
            assert!(Asker::new(&world, address).is_answered(PATIENCE), "{backend} {what}");
            assert!(flows(&site, to) > 0, "{backend} {what}");
        }
        end();
        for to in [&one.v4, &one.v6] {
            assert_eq!(flows(&site, to), 0, "{backend} {what} {to}");
        }
    }
    site.leave(&two, &other);
}

/// An ADD that comes again, by either backend, when one of the container's families is off: nobody knows of that later.
fn flows_of_a_family_that_is_off_end(backend: &'static str) {
    let site = Site::bridge(backend);
    let world = site.network.world();
    let guest = site.network.guest("one");
    let _servers = [&guest.v4, &guest.v6].map(|it| servers(&guest, it));
    for (again, is_off) in
        ["iptables", "nftables"].into_iter().flat_map(|it| [(it, &guest.v4), (it, &guest.v6)])
    {
        site.publish(&guest, &both());
        for (address, to) in [(NODE4, &guest.v4), (NODE6, &guest.v6)] {
            assert!(Asker::new(&world, address).is_answered(PATIENCE), "{backend} {again}");
            assert!(flows(&site, to) > 0, "{backend} {again}");
        }
        let mut result = guest.result.clone();
        let ips = result["ips"].as_array_mut().expect("a list");
        ips.retain(|ip| !ip["address"].as_str().is_some_and(|it| it.starts_with(&**is_off)));
        let keys = json!({"prevResult": result, "backend": again});
        let _ = site.call("ADD", &guest, &both(), &keys).ok();
        let left = [&guest.v4, &guest.v6].map(|it| flows(&site, it) > 0);
        assert_eq!(left, [is_off != &guest.v4, is_off != &guest.v6], "{backend} {again} {is_off}");
        site.leave_ports(&guest, &both());
    }
    site.leave(&guest, &both());
}

/// A port that is published is that of this host: flows to other hosts may have the same.
fn flows_to_other_hosts_go_on(backend: &'static str) {
    let site = Site::bridge(backend);
    let world = site.network.world();
    let (one, two) = (site.network.guest("one"), site.network.guest("two"));
    for (address, port) in [(WORLD4, 8080), (WORLD6, 8086)] {
        let like = address.parse().expect("an address");
        let server = Server::start_at(&world, Protocol::Udp, like, port);
        let _ = must_reach_at(&two.pod, &server, &to(address, port));
        assert_eq!(flows(&site, address), 1);
    }
    site.publish(&one, &both());
    site.leave_ports(&one, &both());
    for address in [WORLD4, WORLD6] {
        assert_eq!(flows(&site, address), 1, "{backend} {address}");
    }
    site.network.leave(&one);
    site.network.leave(&two);
}
