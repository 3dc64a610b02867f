//! A router between two containers, which also translates addresses of services.

use std::net::{IpAddr, SocketAddr};

use netlink::{Request, Route};
use netns::Netns;

use crate::space::{PLAIN, cidr, namespace, numbered_veth, run, socket};

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

/// Two containers and the router between them, whose rules are `mangle`'s and the services'.
pub(crate) fn routed(mangle: &str) -> Routed {
    let router = namespace();
    let (client, server) = (connect(&router, 1), connect(&router, 2));
    let entered = router.enter().unwrap();
    for file in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{file}"), "1").unwrap();
    }
    for (program, addresses) in ["iptables-restore", "ip6tables-restore"].iter().zip(addresses()) {
        let (service, server) = (addresses.service, addresses.server());
        let rule = |protocol| {
            format!(
                "-A PREROUTING -d {service} -p {protocol} --dport 80 -j DNAT --to-destination {server}\n"
            )
        };
        let (tcp, udp) = (rule("tcp"), rule("udp"));
        run(program, &[], &format!("*nat\n{tcp}{udp}COMMIT\n*mangle\n{mangle}COMMIT\n"));
    }
    drop(entered);
    Routed { client, router, server }
}
