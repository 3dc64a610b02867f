//! A router between two containers, which also translates addresses of services.

use std::net::{IpAddr, SocketAddr};

use netlink::{Request, Route};
use netns::Netns;

use crate::space::{PLAIN, cidr, namespace, nft, numbered_veth, socket};

pub(crate) struct Routed {
    pub(crate) client: Netns,
    pub(crate) router: Netns,
    pub(crate) server: Netns,
}

/// Addresses of one family.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) client: IpAddr,
    pub(crate) server: IpAddr,
    /// A service, of which port 80 is port 8080 of the server.
    pub(crate) service: IpAddr,
}

impl Addresses {
    pub(crate) fn server(&self) -> SocketAddr {
        (self.server, 8080).into()
    }

    pub(crate) fn service(&self) -> SocketAddr {
        (self.service, 80).into()
    }
}

/// Those of IPv4 and of IPv6.
pub(crate) fn addresses() -> [Addresses; 2] {
    let addresses = |[client, server, service]: [&str; 3]| Addresses {
        client: client.parse().unwrap(),
        server: server.parse().unwrap(),
        service: service.parse().unwrap(),
    };
    [
        addresses(["10.1.1.2", "10.1.2.2", "10.9.9.9"]),
        addresses(["fd00:1::2", "fd00:2::2", "fd09::9"]),
    ]
}

fn connect(router: &Netns, number: u8) -> Netns {
    let (mut host, netns) = (socket(router), namespace());
    let near = numbered_veth(&mut host, number, &netns, None);
    let name = format!("veth{number}");
    let mut inside = socket(&netns);
    let far = inside.link_by_name("eth0").unwrap().unwrap().index;
    inside.execute(&[Request::set_up(far, "eth0")]).unwrap();
    for (network, bits, everything) in
        [(format!("10.1.{number}."), 24, "0.0.0.0/0"), (format!("fd00:{number}::"), 64, "::/0")]
    {
        let add = |end, link, name: &str| {
            Request::add_address(link, name, cidr(&format!("{network}{end}/{bits}")), PLAIN)
        };
        host.execute(&[add(1, near.index, &name)]).unwrap();
        let gateway = Some(format!("{network}1").parse().unwrap());
        let route = Route { gateway, ..Route::new(cidr(everything), far) };
        inside.execute(&[add(2, far, "eth0"), Request::add_route(&route, "eth0")]).unwrap();
    }
    netns
}

/// Two containers and the router between them, with the services and with rules of nft's for what it
/// forwards.
pub(crate) fn routed(forward: &str) -> Routed {
    let router = namespace();
    let (client, server) = (connect(&router, 1), connect(&router, 2));
    let entered = router.enter().unwrap();
    for file in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{file}"), "1").unwrap();
    }
    let services = addresses().map(|addresses| {
        let (service, server) = (addresses.service, addresses.server());
        let family = if service.is_ipv4() { "ip" } else { "ip6" };
        let of = |protocol| {
            format!("{family} daddr {service} {protocol} dport 80 dnat {family} to {server}\n")
        };
        of("tcp") + &of("udp")
    });
    let services = services.concat();
    nft(&format!(
        "table inet routed {{
            chain services {{ type nat hook prerouting priority -100;
                {services} }}
            chain forward {{ type filter hook forward priority -150;
                {forward} }}
        }}"
    ));
    drop(entered);
    Routed { client, router, server }
}
