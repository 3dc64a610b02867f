//! A node with routed pods, the world outside, and services in the node's kernel.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use cluster::Change;
use lab::{Node, Pod, Space};
use proxyd::dataplane::Dataplane;
use proxyd::flows::{Places, Stale};
use proxyd::index::{Event, Index};
use proxyd::nftables::{Local, Settings};
use proxyd::plan;
use serde_json::{Value, json};

use crate::objects::{HERE, ready, service, slice};
use crate::server::{PORT, Server};

/// A node, and what it serves.
pub(crate) struct Site {
    pub(crate) node: Node,
    pub(crate) is_ipv4: bool,
    index: Index,
    dataplane: Dataplane,
    pods: Vec<(Pod, Server)>,
    world: Pod,
}

impl Site {
    pub(crate) fn new(is_ipv4: bool) -> Self {
        Self::with(is_ipv4, |_| {})
    }

    /// With other settings: unless told, pods are known by their addresses.
    pub(crate) fn with(is_ipv4: bool, change: impl FnOnce(&mut Settings)) -> Self {
        let node = Node::new();
        node.sh(
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1; ip link set lo up",
        );
        let mut settings = Settings {
            local: Local::Ranges(vec![
                if is_ipv4 { "10.1.0.0/16" } else { "fd00:1::/64" }.parse().unwrap(),
            ]),
            service_ranges: vec![
                if is_ipv4 { "10.96.0.0/16" } else { "fd00:96::/112" }.parse().unwrap(),
            ],
            ..Settings::default()
        };
        change(&mut settings);
        let families = [true, false];
        let dataplane = node.enter(|| Dataplane::open(&settings, &families).unwrap());
        let world = node.pod("world");
        let mut site =
            Self { node, is_ipv4, index: Index::default(), dataplane, pods: Vec::new(), world };
        site.wire(None);
        // What is not here is outside.
        let (world, v) = (site.address("world"), if is_ipv4 { "-4" } else { "-6" });
        site.node.sh(&format!("ip {v} route add default via {world} dev v0"));
        let addresses = [site.address("node")].into();
        let (name, zone) = (HERE.to_owned(), Some("z".to_owned()));
        let node = plan::Node { name, zone, addresses, ..plan::Node::default() };
        site.index.apply(Event::Node(node));
        let services = Event::Services(Change::Listed(vec![]));
        site.index.apply(services);
        site.index.apply(Event::Slices(Change::Listed(vec![])));
        let plans = site.index.plans();
        site.dataplane.adopt(&plans).unwrap();
        site
    }

    /// Joins a pod, or the world, to the node by a veth with routes.
    fn wire(&self, pod: Option<(&Pod, &str, usize)>) {
        let (space, name, place) = pod.unwrap_or((&self.world, "world", 0));
        let [near, far] =
            [self.address(if place == 0 { "node" } else { "gateway" }), self.address(name)];
        let (length, option) = if self.is_ipv4 { (32, "") } else { (128, "nodad") };
        self.node.sh(&format!(
            "ip link add v{place} type veth peer name eth0 netns {path}; ip link set v{place} up
             ip addr add {near}/{length} dev v{place} {option}
             ip route add {far} dev v{place}",
            path = space.path().display()
        ));
        space.sh(&format!(
            "ip link set lo up; ip link set eth0 up; ip addr add {far}/{length} dev eth0 {option}
             ip route add {near} dev eth0; ip route add default via {near}"
        ));
    }

    /// The address of what [`Self::control_plane`] makes.
    pub(crate) const CONTROL_PLANE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 2));

    /// Another node for a control plane, reached by a veth as any other.
    pub(crate) fn control_plane(&self) -> Node {
        let control = Node::new();
        control.sh("ip link set lo up");
        self.node.sh(&format!(
            "ip link add c0 type veth peer name c1 netns {}; ip link set c0 up; ip addr add 203.0.113.1/30 dev c0",
            control.path().display()
        ));
        control.sh(&format!("ip link set c1 up; ip addr add {}/30 dev c1", Self::CONTROL_PLANE));
        control
    }

    /// An address by who has it.
    pub(crate) fn address(&self, of: &str) -> IpAddr {
        let (four, six) = match of {
            "node" => ("192.0.2.1".to_owned(), "2001:db8::1".to_owned()),
            "world" => ("192.0.2.2".to_owned(), "2001:db8::2".to_owned()),
            "balancer" => ("198.51.100.1".to_owned(), "2001:db8:1::1".to_owned()),
            "named" => ("198.51.100.2".to_owned(), "2001:db8:1::2".to_owned()),
            "gateway" => ("169.254.1.1".to_owned(), "fd00:9::1".to_owned()),
            "service" => ("10.96.0.1".to_owned(), "fd00:96::1".to_owned()),
            "other" => ("10.96.0.2".to_owned(), "fd00:96::2".to_owned()),
            "nobody" => ("10.96.0.99".to_owned(), "fd00:96::99".to_owned()),
            // One that is elsewhere.
            "far" => ("10.1.9.9".to_owned(), "fd00:1::9:9".to_owned()),
            pod => {
                let letter = pod.bytes().next().unwrap_or_default();
                (format!("10.1.0.{letter}"), format!("fd00:1::{letter:x}"))
            }
        };
        if self.is_ipv4 { four } else { six }.parse().expect("an address")
    }

    /// A place by who has its address.
    pub(crate) fn at(&self, of: &str, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(of), port)
    }

    /// Makes pods with servers, each of a letter.
    pub(crate) fn pods<const COUNT: usize>(&mut self, names: [&str; COUNT]) {
        for name in names {
            let pod = self.node.pod(name);
            self.wire(Some((&pod, name, self.pods.len() + 1)));
            let server = Server::start(&pod, name, self.is_ipv4);
            self.pods.push((pod, server));
        }
    }

    /// A pod.
    pub(crate) fn pod(&self, name: &str) -> &Pod {
        let mut pods = self.pods.iter().map(|(pod, _)| pod);
        pods.find(|it| it.name() == name).expect("there is such a pod")
    }

    /// Who is outside.
    pub(crate) fn world(&self) -> &Space {
        &self.world
    }

    /// The service "s" at the address "service", with port 80 of both protocols, and these keys; how many flows were cut.
    pub(crate) fn serve(&mut self, keys: &Value, endpoints: &[Value]) -> usize {
        let mut spec = json!({
            "clusterIP": self.address("service"),
            "ports": [
                {"name": "t", "port": 80, "nodePort": 30080},
                {"name": "u", "port": 80, "nodePort": 30080, "protocol": "UDP"},
            ],
        });
        for (key, value) in keys.as_object().expect("keys are an object") {
            spec[key] = value.clone();
        }
        self.serve_as("s", &spec, endpoints)
    }

    /// A service, and its endpoints at [`PORT`]; how many flows were cut.
    pub(crate) fn serve_as(&mut self, name: &str, spec: &Value, endpoints: &[Value]) -> usize {
        self.index.apply(Event::Services(Change::Applied(service(name, spec))));
        let ports: Vec<_> = spec["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|it| json!({"name": it["name"], "port": PORT, "protocol": it["protocol"]}))
            .collect();
        let slice = slice(name, &json!(ports), endpoints);
        self.index.apply(Event::Slices(Change::Applied(slice)));
        self.write()
    }

    /// The service is gone.
    pub(crate) fn remove(&mut self, name: &str) {
        self.index.apply(Event::Services(Change::Removed(service(name, &json!({})))));
        self.write();
    }

    /// As the agent does it; how many flows were cut.
    fn write(&mut self) -> usize {
        let changes = self.index.take_changes();
        let places = self.index.serving(changes.datagrams);
        let Self { node, dataplane, .. } = self;
        node.enter(|| {
            dataplane.apply(&changes.plans).unwrap();
            Stale::default().cut(&places, &Places::new()).unwrap().count
        })
    }

    /// Endpoints of the node with these names.
    pub(crate) fn ready<const COUNT: usize>(&self, names: [&str; COUNT]) -> Vec<Value> {
        names.iter().map(|it| ready(&self.address(it).to_string(), HERE)).collect()
    }

    /// What the tables hold, without counters and in an order of its own.
    pub(crate) fn content(&self) -> Vec<String> {
        let list = "nft -s list table ip podwire-proxy; nft -s list table ip6 podwire-proxy";
        let text = self.node.try_sh(list).stdout;
        let parts = text.split([',', '\n', '{', '}']).map(|it| it.trim().to_owned());
        let mut parts: Vec<_> = parts.filter(|it| !it.is_empty()).collect();
        parts.sort();
        parts
    }

    /// The tables as nft lists them.
    pub(crate) fn tables(&self) -> String {
        self.node.sh("nft list ruleset")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!(
                "{}",
                self.node.try_sh("nft list ruleset; conntrack -L 2>&1 | head -20").stdout
            );
        }
    }
}
