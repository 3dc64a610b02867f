//! Tables and chains.

use std::fmt;

/// What a table's chains see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// Both.
    Inet,
    /// Frames on bridges.
    Bridge,
    /// All that single interfaces receive and send.
    Netdev,
}

/// A table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table<'a> {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: &'a str,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where the kernel calls it; `None`: only rules lead there.
    pub base: Option<Base<'a>>,
    /// A word for those who read the table: at most 127 bytes.
    pub comment: Option<&'a str>,
}

/// Where the kernel calls a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base<'a> {
    /// What it may do.
    pub kind: Kind,
    /// Which packets it sees.
    pub hook: Hook<'a>,
    /// Chains of a hook are called in the order of this.
    pub priority: i32,
    /// What becomes of packets that the chain does not decide on.
    pub policy: Policy,
}

/// What becomes of what no rule of a base chain decides on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// It passes, unless somebody has changed the chain that is there.
    Accept,
    /// It does not.
    Drop,
}

/// What a base chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Let packets pass or not.
    Filter,
    /// Change addresses, of the first packet of each connection.
    Nat,
}

/// Which packets a base chain sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook<'a> {
    /// All that come in.
    Prerouting,
    /// Those for this host.
    Input,
    /// Those that pass through.
    Forward,
    /// Those that this host sends.
    Output,
    /// All that go out.
    Postrouting,
    /// All that come in by the interface of this name ([`Family::Netdev`]).
    Ingress(&'a str),
    /// All that go out by the interface of this name ([`Family::Netdev`]).
    Egress(&'a str),
}

impl<'a> Hook<'a> {
    /// The kernel's number, which for IP and for bridges is the same.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Prerouting | Self::Ingress(_) => 0,
            Self::Input | Self::Egress(_) => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
        }
    }

    /// The interface that it is of.
    #[must_use]
    pub const fn interface(self) -> Option<&'a str> {
        match self {
            Self::Ingress(interface) | Self::Egress(interface) => Some(interface),
            _ => None,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
            Self::Bridge => "bridge",
            Self::Netdev => "netdev",
        })
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.family, self.name)
    }
}

impl Kind {
    /// As nft and the kernel call it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }
}

impl fmt::Display for Hook<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Ingress(_) => "ingress",
            Self::Egress(_) => "egress",
        })?;
        self.interface().map_or(Ok(()), |it| write!(formatter, " device \"{it}\""))
    }
}

/// What stands between the chain's braces before its rules.
impl fmt::Display for Base<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, hook, priority, policy } = self;
        write!(formatter, "type {} hook {hook} priority {priority};", kind.word())?;
        match policy {
            Policy::Accept => Ok(()),
            Policy::Drop => formatter.write_str(" policy drop;"),
        }
    }
}
