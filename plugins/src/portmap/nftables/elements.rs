//! What an attachment has in the sets and maps of its class.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;
use ruleset::iptables::PortRange;
use ruleset::nft::{Element, Encoded, Key as SetKey, Set, Value};

use super::class::Class;
use crate::owner::Owner;
use crate::portmap::conf::Conf;
use crate::portmap::mapping::{Key, Protocol};

const MASQUERADED: &str = "masqueraded";
const BOUND: &str = "/bound";
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A set or map of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// Ports of one of the host's addresses.
    Addresses {
        /// Whether of IPv4.
        is_ipv4: bool,
    },
    /// Ports of all of them.
    Ports {
        /// Whether of IPv4.
        is_ipv4: bool,
    },
    /// From which networks what is for which port is masqueraded.
    Masqueraded {
        /// Whether of IPv4.
        is_ipv4: bool,
        /// How many bits the networks have: each such number has a set of its own, and is looked up by itself, which
        /// costs the same whatever is in there. A set of intervals costs more the more it holds, above all what takes
        /// elements out of it (`nft_pipapo_remove` goes through all).
        prefix: u8,
        /// Whether the ports are of one of the host's addresses, not of all.
        is_bound: bool,
    },
    /// The set of intervals for the same that the layout before this had.
    Former {
        /// Whether of IPv4.
        is_ipv4: bool,
    },
}

impl Part {
    /// Those of every class.
    pub(super) const ALL: [Self; 4] = [
        Self::Addresses { is_ipv4: true },
        Self::Ports { is_ipv4: true },
        Self::Addresses { is_ipv4: false },
        Self::Ports { is_ipv4: false },
    ];

    /// Whether it leads to containers.
    pub(super) const fn leads(self) -> bool {
        matches!(self, Self::Addresses { .. } | Self::Ports { .. })
    }

    /// Whether it is of IPv4.
    pub(super) const fn is_ipv4(self) -> bool {
        match self {
            Self::Addresses { is_ipv4 }
            | Self::Ports { is_ipv4 }
            | Self::Masqueraded { is_ipv4, .. }
            | Self::Former { is_ipv4 } => is_ipv4,
        }
    }

    /// Its name in the class of a suffix.
    pub(super) fn name(self, suffix: &str) -> String {
        let family = if self.is_ipv4() { 4 } else { 6 };
        match self {
            Self::Addresses { .. } => format!("addresses{family}{suffix}"),
            Self::Ports { .. } => format!("ports{family}{suffix}"),
            Self::Masqueraded { prefix, is_bound, .. } => {
                let bound = if is_bound { BOUND } else { "" };
                format!("{MASQUERADED}{family}/{prefix}{bound}{suffix}")
            }
            Self::Former { .. } => format!("{MASQUERADED}{family}{suffix}"),
        }
    }

    /// The part of this name, and the suffix of its class.
    pub(super) fn named(name: &str) -> Option<(Self, &str)> {
        let former = [true, false].map(|is_ipv4| Self::Former { is_ipv4 });
        let is_suffix = |it: &str| it.is_empty() || it.starts_with('-');
        let found = Self::ALL.into_iter().chain(former).find_map(|part| {
            let suffix = name.strip_prefix(&part.name("")).filter(|it| is_suffix(it))?;
            Some((part, suffix))
        });
        found.or_else(|| {
            let (family, rest) = name.strip_prefix(MASQUERADED)?.split_once('/')?;
            let (word, suffix) = rest.split_at(rest.find('-').unwrap_or(rest.len()));
            let prefix = word.strip_suffix(BOUND).unwrap_or(word).parse().ok()?;
            let is_bound = word.ends_with(BOUND);
            let part = Self::Masqueraded { is_ipv4: family == "4", prefix, is_bound };
            (part.name(suffix) == name).then_some((part, suffix))
        })
    }

    /// The set or map.
    pub(super) fn set(self, suffix: &str) -> Set {
        let address = if self.is_ipv4() { SetKey::Ipv4 } else { SetKey::Ipv6 };
        let port = [SetKey::Protocol, SetKey::Port];
        let name = self.name(suffix);
        let of_addresses = |count| [&vec![address; count][..], &port].concat();
        match self {
            Self::Addresses { .. } => {
                Set::new(name, of_addresses(1)).to_values([address, SetKey::Port])
            }
            Self::Ports { .. } => Set::new(name, port).to_values([address, SetKey::Port]),
            Self::Masqueraded { is_bound, .. } => {
                Set::new(name, of_addresses(if is_bound { 2 } else { 1 }))
            }
            Self::Former { .. } => Set::new(name, of_addresses(2)).of_intervals(),
        }
    }
}

/// Where a port of a family is published: an element without what it leads to.
pub(super) fn place(key: &Key, is_ipv4: bool) -> (Part, Element) {
    let port = [Value::Protocol(key.protocol.number()), port(key.port)];
    match key.address {
        Some(host) => {
            let key = [&[Value::Address(host)][..], &port].concat();
            (Part::Addresses { is_ipv4 }, Element::new(key))
        }
        None => (Part::Ports { is_ipv4 }, Element::new(port)),
    }
}

/// Where it is told that what comes from a network by a port is masqueraded: an element.
fn masqueraded(key: &Key, source: IpNetwork) -> (Part, Element) {
    let (is_ipv4, prefix, is_bound) = (source.is_ipv4(), source.prefix(), key.address.is_some());
    let host = key.address.map(Value::Address);
    let port = [Value::Protocol(key.protocol.number()), port(key.port)];
    let source = [Value::Address(source.network())].into_iter();
    let element = Element::new(source.chain(host).chain(port).collect::<Vec<_>>());
    (Part::Masqueraded { is_ipv4, prefix, is_bound }, element)
}

/// What a part has if anything is masqueraded that comes by a port which leads to this address: from the container's
/// network, or from the host's loopback.
pub(super) fn masqueraded_in(part: Part, key: &Key, to: IpAddr) -> Vec<Element> {
    let Part::Masqueraded { prefix, .. } = part else { return Vec::new() };
    let sources = [Some(to), to.is_ipv4().then_some(LOOPBACK)].into_iter().flatten();
    let networks = sources.filter_map(|it| IpNetwork::new(it, prefix).ok());
    let found = networks.map(|source| masqueraded(key, source));
    found.filter(|it| it.0 == part).map(|it| it.1).collect()
}

/// What an element of the layout before has become.
pub(super) fn converted(part: Part, set: &Set, element: &Encoded) -> Option<(Part, Element)> {
    let Part::Former { .. } = part else { return None };
    let element = set.decode(&[element.clone()].into()).pop_first()?;
    let [source, host, Value::Protocol(protocol), Value::Ports(ports)] = element.key.as_slice()
    else {
        return None;
    };
    let network = |value: &Value| match value {
        Value::Address(it) => Some(IpNetwork::from(*it)),
        Value::Network(it) => Some(*it),
        _ => None,
    };
    let address = network(host).filter(|it| it.prefix() > 0).map(|it| it.ip());
    let key = Key { protocol: Protocol::numbered(*protocol)?, port: ports.first, address };
    let (part, new) = masqueraded(&key, network(source)?);
    Some((part, Element { comment: element.comment, ..new }))
}

fn port(port: u16) -> Value {
    Value::Ports(PortRange { first: port, last: port })
}

/// The elements for one of the container's addresses, by the sets that they are in: of all ports but those that `is_taken`
/// says lead to the container already.
pub(super) fn of(
    conf: &Conf,
    class: &Class,
    owner: &Owner,
    address: IpNetwork,
    is_taken: impl Fn(&Key) -> bool,
) -> Vec<(Set, Vec<Encoded>)> {
    let is_ipv4 = address.is_ipv4();
    let mut parts: BTreeMap<Part, Vec<Element>> = BTreeMap::new();
    for mapping in &conf.mappings {
        let Some(key) = mapping.key(is_ipv4).filter(|it| !is_taken(it)) else { continue };
        let (part, element) = place(&key, is_ipv4);
        let to = [Value::Address(address.ip()), port(mapping.container_port)];
        parts.entry(part).or_default().push(element.leading_to_values(to));
        for (part, element) in sources(conf, address).into_iter().map(|it| masqueraded(&key, it)) {
            parts.entry(part).or_default().push(element);
        }
    }
    let encoded = parts.into_iter().map(|(part, elements)| {
        let set = part.set(&class.suffix);
        let commented = elements.into_iter().map(|it| it.commented(&owner.comment));
        // Of two mappings that share a family one is enough.
        let encoded: BTreeSet<Encoded> = commented.flat_map(|it| set.encode(&it)).collect();
        (set, encoded.into_iter().collect())
    });
    encoded.collect()
}

fn everything(is_ipv4: bool) -> IpNetwork {
    let all = if is_ipv4 { IpAddr::from([0_u8; 4]) } else { IpAddr::from([0_u8; 16]) };
    IpNetwork::new(all, 0).unwrap_or(all.into())
}

/// From where connections are masqueraded: the container and its network, as answers from there would not come back
/// through the host; the host's loopback; or everywhere.
fn sources(conf: &Conf, address: IpNetwork) -> Vec<IpNetwork> {
    let is_ipv4 = address.is_ipv4();
    match (conf.snat, conf.masq_all || address.prefix() == 0) {
        (false, _) => Vec::new(),
        (true, true) => vec![everything(is_ipv4)],
        (true, false) => {
            let network = IpNetwork::new(address.network(), address.prefix()).unwrap_or(address);
            let loopback = is_ipv4.then(|| IpNetwork::from(LOOPBACK));
            let loopback = loopback.filter(|it| !network.contains(it.ip()));
            [Some(network), loopback].into_iter().flatten().collect()
        }
    }
}

/// What an element of a map publishes, and where it leads.
pub(super) fn read(part: Part, set: &Set, element: &Encoded) -> Option<(Key, IpAddr)> {
    let element = set.decode(&[element.clone()].into()).pop_first()?;
    let mut values = element.key.into_iter();
    let address = match part {
        Part::Addresses { .. } => match values.next()? {
            Value::Address(address) => Some(address),
            _ => return None,
        },
        Part::Ports { .. } => None,
        Part::Masqueraded { .. } | Part::Former { .. } => return None,
    };
    let (protocol, port) = match (values.next()?, values.next()?) {
        (Value::Protocol(number), Value::Ports(ports)) => {
            (Protocol::numbered(number)?, ports.first)
        }
        _ => return None,
    };
    match element.data.first()? {
        Value::Address(to) => Some((Key { protocol, port, address }, *to)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portmap::conf::read as read_conf;
    use cni::decode::{Fields, Problems};
    use serde_json::{Value as Json, json};

    fn told(conf: &Json, address: &str) -> Vec<String> {
        let problems = Problems::default();
        let conf = read_conf(&Fields::root(conf.as_object().unwrap(), &problems));
        assert!(problems.into_vec().is_empty());
        let owner = Owner::new("n1", "cid1", "eth0");
        let all = of(&conf, &Class::of(&conf), &owner, address.parse().unwrap(), |_| false);
        let text = |set: &Set, element: &Encoded| {
            let element = set.decode(&[element.clone()].into()).pop_first().unwrap();
            assert_eq!(element.comment.as_ref(), Some(&owner.comment));
            let text = Element { comment: None, ..element }.to_string();
            format!("{}: {text}", set.name)
        };
        let told =
            all.iter().flat_map(|(set, it)| it.iter().map(|it| text(set, it)).collect::<Vec<_>>());
        told.collect()
    }

    fn conf(keys: Json, mappings: Json) -> Json {
        let mut conf = keys;
        conf["runtimeConfig"] = json!({"portMappings": mappings});
        conf
    }

    fn mapping(host_port: u16, host_ip: &str) -> Json {
        json!({"hostPort": host_port, "containerPort": 80, "protocol": "tcp", "hostIP": host_ip})
    }

    #[test]
    fn a_port_is_published_of_all_addresses_or_of_one() {
        let all = conf(
            json!({}),
            json!([mapping(8080, ""), mapping(8081, "192.0.2.1"), mapping(8082, "::")]),
        );
        assert_eq!(
            told(&all, "10.1.0.2/24"),
            [
                "addresses4: 192.0.2.1 . tcp . 8081 : 10.1.0.2 . 80",
                "ports4: tcp . 8080 : 10.1.0.2 . 80",
                "masqueraded4/24: 10.1.0.0 . tcp . 8080",
                "masqueraded4/24/bound: 10.1.0.0 . 192.0.2.1 . tcp . 8081",
                "masqueraded4/32: 127.0.0.1 . tcp . 8080",
                "masqueraded4/32/bound: 127.0.0.1 . 192.0.2.1 . tcp . 8081",
            ]
        );
        assert_eq!(
            told(&all, "fd00::2/64"),
            [
                "ports6: tcp . 8080 : fd00::2 . 80",
                "ports6: tcp . 8082 : fd00::2 . 80",
                "masqueraded6/64: fd00:: . tcp . 8080",
                "masqueraded6/64: fd00:: . tcp . 8082",
            ]
        );
    }

    #[test]
    fn who_is_masqueraded_is_configured() {
        let none = conf(json!({"snat": false}), json!([mapping(8080, "")]));
        assert_eq!(told(&none, "10.1.0.2/24"), ["ports4: tcp . 8080 : 10.1.0.2 . 80"]);
        let all = conf(json!({"masqAll": true}), json!([mapping(8080, "")]));
        let [_, everybody] = told(&all, "10.1.0.2/24").try_into().unwrap();
        assert_eq!(everybody, "masqueraded4/0: 0.0.0.0 . tcp . 8080");
    }

    #[test]
    fn what_the_layout_before_had_is_what_this_one_has() {
        let former = Part::Former { is_ipv4: true };
        let set = former.set("");
        let of = |source: &str, host: &str| {
            let network = |text: &str| Value::Network(text.parse().unwrap());
            let port = [Value::Protocol(6), port(8080)];
            let key = [&[network(source), network(host)][..], &port].concat();
            let encoded = set.encode(&Element::new(key).commented("whose")).pop().unwrap();
            let (part, element) = converted(former, &set, &encoded).unwrap();
            format!("{}: {element}", part.name(""))
        };
        let comment = "comment \"whose\"";
        for (source, host, expected) in [
            ("10.1.0.0/24", "0.0.0.0/0", "masqueraded4/24: 10.1.0.0 . tcp . 8080"),
            (
                "127.0.0.1/32",
                "192.0.2.1/32",
                "masqueraded4/32/bound: 127.0.0.1 . 192.0.2.1 . tcp . 8080",
            ),
            ("0.0.0.0/0", "0.0.0.0/0", "masqueraded4/0: 0.0.0.0 . tcp . 8080"),
        ] {
            assert_eq!(of(source, host), format!("{expected} {comment}"));
        }
    }

    #[test]
    fn what_is_masqueraded_is_found_by_what_is_published() {
        let all = conf(json!({}), json!([mapping(8080, ""), mapping(8081, "192.0.2.1")]));
        let problems = Problems::default();
        let conf = read_conf(&Fields::root(all.as_object().unwrap(), &problems));
        let owner = Owner::new("n1", "cid1", "eth0");
        let address: IpNetwork = "10.1.0.2/24".parse().unwrap();
        let class = Class::of(&conf);
        for (set, elements) in of(&conf, &class, &owner, address, |_| false) {
            let (part, _) = Part::named(&set.name).unwrap();
            let keys = conf.mappings.iter().filter_map(|it| it.key(true));
            let found: BTreeSet<Vec<u8>> = keys
                .flat_map(|key| masqueraded_in(part, &key, address.ip()))
                .flat_map(|it| set.encode(&it))
                .map(|it| it.key)
                .collect();
            if let Part::Masqueraded { .. } = part {
                assert!(elements.iter().all(|it| found.contains(&it.key)), "{}", set.name);
            }
        }
    }

    #[test]
    fn names_of_sets_tell_the_part_and_the_class() {
        let masqueraded = [(24, false), (128, true)].map(|(prefix, is_bound)| Part::Masqueraded {
            is_ipv4: !is_bound,
            prefix,
            is_bound,
        });
        let former = [Part::Former { is_ipv4: true }, Part::Former { is_ipv4: false }];
        for part in Part::ALL.into_iter().chain(masqueraded).chain(former) {
            assert_eq!(Part::named(&part.name("")), Some((part, "")));
            assert_eq!(Part::named(&part.name("-x")), Some((part, "-x")));
        }
        for other in [
            "ports44",
            "others",
            "masqueraded4/",
            "masqueraded5/24",
            "masqueraded4/024",
            "masqueraded4/24x",
        ] {
            assert_eq!(Part::named(other), None);
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let conf = conf(json!({}), json!([mapping(8080, ""), mapping(8081, "192.0.2.1")]));
        let problems = Problems::default();
        let conf = read_conf(&Fields::root(conf.as_object().unwrap(), &problems));
        let owner = Owner::new("n1", "cid1", "eth0");
        let address = "10.1.0.2/24".parse().unwrap();
        let all = of(&conf, &Class::of(&conf), &owner, address, |_| false);
        let read = all.iter().filter_map(|(set, elements)| {
            let (part, _) = Part::named(&set.name)?;
            part.leads().then(|| read(part, set, elements.first()?)).flatten()
        });
        let read: Vec<String> = read.map(|(key, to)| format!("{key} {to}")).collect();
        assert_eq!(read, ["8081/tcp of 192.0.2.1 10.1.0.2", "8080/tcp 10.1.0.2"]);
    }
}
