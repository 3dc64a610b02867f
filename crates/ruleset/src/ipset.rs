//! Sets of addresses.

use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

/// What a set holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Addresses: `hash:ip`.
    Addresses,
    /// Networks: `hash:net`.
    Networks,
    /// Addresses, each with a protocol and a port: `hash:ip,port`.
    AddressPorts,
}

/// A set, without its members.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Set {
    /// Its name: at most 31 bytes (`IPSET_MAXNAMELEN`).
    pub name: String,
    /// What it holds.
    pub kind: Kind,
    /// Whether its addresses are of IPv4, else of IPv6.
    pub is_ipv4: bool,
}

/// A member of a set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// Of [`Kind::Addresses`].
    Address(IpAddr),
    /// Of [`Kind::Networks`]: not one of everything, which these sets cannot hold; see [`halves`].
    Network(IpNetwork),
    /// Of [`Kind::AddressPorts`].
    AddressPort {
        /// The address.
        address: IpAddr,
        /// `tcp`, `udp` or `sctp`.
        protocol: &'static str,
        /// The port.
        port: u16,
    },
}

/// As many members as a set can have; the kernel's own limit is 65,536, and this one costs nothing.
const MAX_MEMBERS: u32 = 1 << 20;

/// The least that the kernel begins with (`IPSET_MIMINAL_HASHSIZE`): most sets are small.
const LEAST_BUCKETS: usize = 64;

/// Changes of sets, as `ipset restore` reads them. They are made one after the other.
#[derive(Debug, Default)]
pub struct Changes {
    lines: String,
    destroyed: String,
}

impl Changes {
    /// Makes a set with room for so many members. One that is there already, of the same kind,
    /// stays as it is.
    ///
    /// It grows by itself when there are more, but each time it doubles the kernel waits for all
    /// processors (`mtype_resize`), which takes ten milliseconds and more.
    pub fn create(&mut self, set: &Set, members: usize) {
        let family = if set.is_ipv4 { "inet" } else { "inet6" };
        let Set { name, kind, .. } = set;
        let most = usize::try_from(MAX_MEMBERS).unwrap_or(usize::MAX);
        let size = members.clamp(LEAST_BUCKETS, most).next_power_of_two();
        write(
            &mut self.lines,
            format_args!(
                "create {name} {kind} family {family} hashsize {size} maxelem {MAX_MEMBERS} -exist"
            ),
        );
    }

    /// Adds a member, which may be there.
    pub fn add(&mut self, set: &str, member: &Member) {
        write(&mut self.lines, format_args!("add {set} {member} -exist"));
    }

    /// Removes a member, which may be gone, and is written as `ipset save` prints it.
    pub fn delete(&mut self, set: &str, member: &str) {
        write(&mut self.lines, format_args!("del {set} {member} -exist"));
    }

    /// Removes all members of a set that is there.
    pub fn flush(&mut self, set: &str) {
        write(&mut self.lines, format_args!("flush {set}"));
    }

    /// Makes these changes too, after those so far.
    pub fn append(&mut self, after: Self) {
        self.lines.push_str(&after.lines);
        self.destroyed.push_str(&after.destroyed);
    }

    /// Removes a set, to which no rule leads any more.
    pub fn destroy(&mut self, set: &str) {
        write(&mut self.destroyed, format_args!("destroy {set}"));
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.destroyed.is_empty()
    }

    /// The changes: sets go last.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.lines, self.destroyed)
    }
}

fn write(lines: &mut String, text: fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    _ = writeln!(lines, "{text}");
}

/// The network as sets of networks can hold it: one of everything is its two halves, as
/// `hash_net4_data_list` knows no prefix of length 0.
#[must_use]
pub fn halves(network: IpNetwork) -> Vec<IpNetwork> {
    if network.prefix() > 0 {
        return vec![network];
    }
    let upper: IpAddr = match network {
        IpNetwork::V4(_) => [128, 0, 0, 0].into(),
        IpNetwork::V6(_) => [0x8000, 0, 0, 0, 0, 0, 0, 0].into(),
    };
    [network.ip(), upper].iter().filter_map(|it| IpNetwork::new(*it, 1).ok()).collect()
}

/// A set as `ipset save` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Its name.
    pub name: String,
    /// Its type and options, as printed.
    pub options: String,
    /// Its members, as printed.
    pub members: BTreeSet<String>,
}

impl Saved {
    /// The sets whose names begin with `prefix`.
    #[must_use]
    pub fn read(text: &str, prefix: &str) -> Vec<Self> {
        let mut sets = Vec::<Self>::new();
        for line in text.lines() {
            let mut words = line.splitn(3, ' ');
            let (Some(word), Some(name)) = (words.next(), words.next()) else { continue };
            let rest = words.next().unwrap_or_default();
            match (word, sets.last_mut()) {
                ("create", _) if name.starts_with(prefix) => sets.push(Self {
                    name: name.to_owned(),
                    options: rest.to_owned(),
                    members: BTreeSet::new(),
                }),
                ("add", Some(set)) if set.name == name => {
                    set.members.insert(rest.trim_end().to_owned());
                }
                _ => {}
            }
        }
        sets
    }

    /// Whether it is of the kind and family that `set` shall have.
    #[must_use]
    pub fn is_like(&self, set: &Set) -> bool {
        let family = if set.is_ipv4 { "inet" } else { "inet6" };
        let mut words = self.options.split(' ');
        words.next() == Some(&set.kind.to_string())
            && words.by_ref().any(|word| word == "family")
            && words.next() == Some(family)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Addresses => "hash:ip",
            Self::Networks => "hash:net",
            Self::AddressPorts => "hash:ip,port",
        })
    }
}

/// As `ipset save` prints it.
impl fmt::Display for Member {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(formatter, "{address}"),
            Self::Network(network) => {
                let host = if network.is_ipv4() { 32 } else { 128 };
                match network.prefix() {
                    prefix if prefix == host => write!(formatter, "{}", network.ip()),
                    prefix => write!(formatter, "{}/{prefix}", network.network()),
                }
            }
            Self::AddressPort { address, protocol, port } => {
                write!(formatter, "{address},{protocol}:{port}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn everything_is_two_halves() {
        assert_eq!(halves(network("0.0.0.0/0")), [network("0.0.0.0/1"), network("128.0.0.0/1")]);
        assert_eq!(halves(network("::/0")), [network("::/1"), network("8000::/1")]);
        assert_eq!(halves(network("10.0.0.0/8")), [network("10.0.0.0/8")]);
    }

    #[test]
    fn members_are_written_as_ipset_prints_them() {
        for (member, text) in [
            (Member::Network(network("10.1.0.0/16")), "10.1.0.0/16"),
            (Member::Network(network("10.1.0.1/32")), "10.1.0.1"),
            (Member::Network(network("fd00::1/128")), "fd00::1"),
            (Member::Address("fd00:0:0::1".parse().unwrap()), "fd00::1"),
            (
                Member::AddressPort {
                    address: "10.0.0.1".parse().unwrap(),
                    protocol: "sctp",
                    port: 80,
                },
                "10.0.0.1,sctp:80",
            ),
        ] {
            assert_eq!(member.to_string(), text);
        }
    }

    #[test]
    fn sets_go_after_all_other_changes() {
        let set = Set { name: "pw-a".to_owned(), kind: Kind::Addresses, is_ipv4: false };
        let mut changes = Changes::default();
        changes.destroy("pw-old");
        changes.create(&set, 1);
        changes.create(&Set { name: "pw-b".to_owned(), ..set }, 1000);
        changes.add("pw-a", &Member::Address("fd00::1".parse().unwrap()));
        assert_eq!(
            changes.text(),
            "create pw-a hash:ip family inet6 hashsize 64 maxelem 1048576 -exist\n\
             create pw-b hash:ip family inet6 hashsize 1024 maxelem 1048576 -exist\n\
             add pw-a fd00::1 -exist\ndestroy pw-old\n"
        );
    }

    #[test]
    fn saved_sets_are_read() {
        let text = "create pw-a hash:ip family inet hashsize 64 maxelem 1048576 bucketsize 12 initval 0x1\n\
                    add pw-a 10.0.0.1\nadd pw-a 10.0.0.2\ncreate x hash:net family inet\nadd x 1.0.0.0/8\n";
        let sets = Saved::read(text, "pw-");
        assert_eq!(sets.len(), 1);
        assert_eq!(sets[0].members, ["10.0.0.1".to_owned(), "10.0.0.2".to_owned()].into());
        let like = |kind, is_ipv4| sets[0].is_like(&Set { name: String::new(), kind, is_ipv4 });
        assert!(like(Kind::Addresses, true));
        assert!(!like(Kind::Addresses, false) && !like(Kind::Networks, true));
    }
}
