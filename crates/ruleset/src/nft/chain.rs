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
    pub base: Option<Base>,
    /// A word for those who read the table: at most 127 bytes.
    pub comment: Option<&'a str>,
}

/// Where the kernel calls a chain. What the chain does not decide passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// What it may do.
    pub kind: Kind,
    /// Which packets it sees.
    pub hook: Hook,
    /// Chains of a hook are called in the order of this.
    pub priority: i32,
}

/// What a base chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Let packets pass or not.
    Filter,
    /// Change addresses, of the first packet of each connection.
    Nat,
}

/// Which packets a base chain sees. The numbers are the kernel's, alike for IP and for bridges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// All that come in.
    Prerouting = 0,
    /// Those for this host.
    Input = 1,
    /// Those that pass through.
    Forward = 2,
    /// Those that this host sends.
    Output = 3,
    /// All that go out.
    Postrouting = 4,
}

impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
            Self::Bridge => "bridge",
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

impl fmt::Display for Hook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        })
    }
}

/// What stands between the chain's braces before its rules.
impl fmt::Display for Base {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, hook, priority } = self;
        write!(formatter, "type {} hook {hook} priority {priority};", kind.word())
    }
}
