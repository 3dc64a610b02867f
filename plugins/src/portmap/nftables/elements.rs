//! What an attachment has in the sets and maps of its class.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use ruleset::iptables::PortRange;
use ruleset::nft::{Element, Encoded, Key as SetKey, Set, Value};

use super::class::Class;
use crate::owner::Owner;
use crate::portmap::conf::Conf;
use crate::portmap::mapping::{Key, Protocol};

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
    /// From where what is for which port is masqueraded.
    Masqueraded {
        /// Whether of IPv4.
        is_ipv4: bool,
    },
}

impl Part {
    pub(super) const ALL: [Self; 6] = [
        Self::Addresses { is_ipv4: true },
        Self::Ports { is_ipv4: true },
        Self::Masqueraded { is_ipv4: true },
        Self::Addresses { is_ipv4: false },
        Self::Ports { is_ipv4: false },
        Self::Masqueraded { is_ipv4: false },
    ];

    /// Whether it leads to containers.
    pub(super) const fn leads(self) -> bool {
        !matches!(self, Self::Masqueraded { .. })
    }

    /// Its name in the class of a suffix.
    pub(super) fn name(self, suffix: &str) -> String {
        let (word, is_ipv4) = match self {
            Self::Addresses { is_ipv4 } => ("addresses", is_ipv4),
            Self::Ports { is_ipv4 } => ("ports", is_ipv4),
            Self::Masqueraded { is_ipv4 } => ("masqueraded", is_ipv4),
        };
        format!("{word}{}{suffix}", if is_ipv4 { 4 } else { 6 })
    }

    /// The part of this name, and the suffix of its class.
    pub(super) fn named(name: &str) -> Option<(Self, &str)> {
        Self::ALL.into_iter().find_map(|part| {
            let suffix = name.strip_prefix(&part.name(""))?;
            (suffix.is_empty() || suffix.starts_with('-')).then_some((part, suffix))
        })
    }

    /// The set or map.
    pub(super) fn set(self, suffix: &str) -> Set {
        let address = |is_ipv4| if is_ipv4 { SetKey::Ipv4 } else { SetKey::Ipv6 };
        let port = [SetKey::Protocol, SetKey::Port];
        let name = self.name(suffix);
        match self {
            Self::Addresses { is_ipv4 } => {
                let address = address(is_ipv4);
                Set::new(name, [&[address][..], &port].concat()).to_values([address, SetKey::Port])
            }
            Self::Ports { is_ipv4 } => {
                Set::new(name, port).to_values([address(is_ipv4), SetKey::Port])
            }
            Self::Masqueraded { is_ipv4 } => {
                let address = address(is_ipv4);
                Set::new(name, [&[address, address][..], &port].concat()).of_intervals()
            }
        }
    }
}

fn port(port: u16) -> Value {
    Value::Ports(PortRange { first: port, last: port })
}

/// The elements for one of the container's addresses, by the sets that they are in.
pub(super) fn of(
    conf: &Conf,
    class: &Class,
    owner: &Owner,
    address: IpNetwork,
) -> Vec<(Set, Vec<Encoded>)> {
    let is_ipv4 = address.is_ipv4();
    let (mut of_addresses, mut of_ports, mut masqueraded) = (Vec::new(), Vec::new(), Vec::new());
    let keys = || conf.mappings.iter().filter_map(|it| Some((it.key(is_ipv4)?, it.container_port)));
    for (key, container_port) in keys() {
        let to = [Value::Address(address.ip()), port(container_port)];
        let last = [Value::Protocol(key.protocol.number()), port(key.port)];
        let element = match key.address {
            Some(host) => Element::new([&[Value::Address(host)][..], &last].concat()),
            None => Element::new(last.clone()),
        };
        let into = if key.address.is_some() { &mut of_addresses } else { &mut of_ports };
        into.push(element.leading_to_values(to));
        // Intervals must not overlap: what is published of all addresses is masqueraded for all.
        let of_all = Key { address: None, ..key };
        if key.address.is_some() && keys().any(|(other, _)| other == of_all) {
            continue;
        }
        masqueraded.extend(sources(conf, address).into_iter().map(|source| {
            let host = match key.address {
                Some(host) => Value::Address(host),
                None => Value::Network(everything(is_ipv4)),
            };
            Element::new([&[Value::Network(source), host][..], &last].concat())
        }));
    }
    let parts = [
        (Part::Addresses { is_ipv4 }, of_addresses),
        (Part::Ports { is_ipv4 }, of_ports),
        (Part::Masqueraded { is_ipv4 }, masqueraded),
    ];
    let filled = parts.into_iter().filter(|(_, elements)| !elements.is_empty());
    let encoded = filled.map(|(part, elements)| {
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
            let loopback = is_ipv4.then(|| IpNetwork::from(IpAddr::from([127, 0, 0, 1])));
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
        Part::Ports { .. } | Part::Masqueraded { .. } => None,
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
        let all = of(&conf, &Class::of(&conf), &owner, address.parse().unwrap());
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
                "masqueraded4: 10.1.0.0/24 . 0.0.0.0/0 . tcp . 8080",
                "masqueraded4: 10.1.0.0/24 . 192.0.2.1 . tcp . 8081",
                "masqueraded4: 127.0.0.1 . 0.0.0.0/0 . tcp . 8080",
                "masqueraded4: 127.0.0.1 . 192.0.2.1 . tcp . 8081",
            ]
        );
        assert_eq!(
            told(&all, "fd00::2/64"),
            [
                "ports6: tcp . 8080 : fd00::2 . 80",
                "ports6: tcp . 8082 : fd00::2 . 80",
                "masqueraded6: fd00::/64 . ::/0 . tcp . 8080",
                "masqueraded6: fd00::/64 . ::/0 . tcp . 8082",
            ]
        );
    }

    #[test]
    fn who_is_masqueraded_is_configured() {
        let none = conf(json!({"snat": false}), json!([mapping(8080, "")]));
        assert_eq!(told(&none, "10.1.0.2/24"), ["ports4: tcp . 8080 : 10.1.0.2 . 80"]);
        let all = conf(json!({"masqAll": true}), json!([mapping(8080, "")]));
        let [_, everybody] = told(&all, "10.1.0.2/24").try_into().unwrap();
        assert_eq!(everybody, "masqueraded4: 0.0.0.0/0 . 0.0.0.0/0 . tcp . 8080");
    }

    #[test]
    fn intervals_of_one_attachment_do_not_overlap() {
        let both = conf(json!({}), json!([mapping(8080, "192.0.2.1"), mapping(8080, "")]));
        let told = told(&both, "10.1.0.2/24");
        let masqueraded = told.iter().filter(|it| it.starts_with("masq"));
        assert!(masqueraded.clone().all(|it| it.contains("0.0.0.0/0")) && masqueraded.count() == 2);
    }

    #[test]
    fn names_of_sets_tell_the_part_and_the_class() {
        for part in Part::ALL {
            assert_eq!(Part::named(&part.name("")), Some((part, "")));
            assert_eq!(Part::named(&part.name("-x")), Some((part, "-x")));
        }
        assert_eq!(Part::named("ports44"), None);
        assert_eq!(Part::named("others"), None);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let conf = conf(json!({}), json!([mapping(8080, ""), mapping(8081, "192.0.2.1")]));
        let problems = Problems::default();
        let conf = read_conf(&Fields::root(conf.as_object().unwrap(), &problems));
        let owner = Owner::new("n1", "cid1", "eth0");
        let all = of(&conf, &Class::of(&conf), &owner, "10.1.0.2/24".parse().unwrap());
        let read = all.iter().filter_map(|(set, elements)| {
            let (part, _) = Part::named(&set.name)?;
            part.leads().then(|| read(part, set, elements.first()?)).flatten()
        });
        let read: Vec<String> = read.map(|(key, to)| format!("{key} {to}")).collect();
        assert_eq!(read, ["8081/tcp of 192.0.2.1 10.1.0.2", "8080/tcp 10.1.0.2"]);
    }
}
