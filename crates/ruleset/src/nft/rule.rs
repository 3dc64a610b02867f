//! Rules.

use std::fmt;

use super::matches::{Field, Match, Together};
use crate::iptables::PortRange;

/// A rule: it applies to packets of which all matches hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What must be so.
    pub matches: Vec<Match>,
    /// Whether packets that it applies to are counted.
    pub is_counted: bool,
    /// What happens then.
    pub statement: Statement,
    /// A word for those who read the table, and by which a rule is known again: at most 254 bytes
    /// (nft itself writes 127).
    pub comment: Option<String>,
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// Says what becomes of the packet.
    Verdict(Verdict),
    /// Has a map say what becomes of it, by what these say of it, one after the other; what the map
    /// has nothing for goes on.
    Map(Vec<Field>, String),
    /// Sends it out by a link, as it is, in a chain of the family netdev.
    Forward {
        /// The link's index.
        link: u32,
        /// Its name.
        name: String,
    },
    /// Sends it to the address and port that a map has for what these say of it, one after the other; what the
    /// map has nothing for goes on.
    Redirect {
        /// Whether of IPv4.
        is_ipv4: bool,
        /// What is looked up.
        fields: Vec<Field>,
        /// Where.
        map: String,
    },
    /// Gives it the priority that a map has for what these say of it; for what the map has nothing, the rule ends.
    SetPriority {
        /// What is looked up.
        fields: Vec<Field>,
        /// Where.
        map: String,
    },
    /// Puts what the one say of it, with what the others say of it, into a map, for so long from now on; or has what is there
    /// last as long from now on. Where the map has no more room, nothing happens.
    Remember {
        /// What is looked up later.
        fields: Vec<Field>,
        /// What is found then.
        data: Vec<Field>,
        /// Where: in a [dynamic](super::Set::of_packets) map.
        map: String,
        /// How long.
        seconds: u32,
    },
    /// Takes out of a map what is looked up by what the ones say of it. What the others say means nothing, but nft and the kernel
    /// ask for as many.
    ///
    /// The kernel frees it later, since Linux 6.5 and the stable ones of August 2023; older ones never do (`nft_rhash_delete`).
    Forget {
        /// What is looked up.
        fields: Vec<Field>,
        /// Of the kinds that are found.
        data: Vec<Field>,
        /// Where: in a [dynamic](super::Set::of_packets) map.
        map: String,
    },
    /// Tells the sender that the port cannot be reached, and drops it.
    Reject,
    /// Copies it to a group of netfilter's log, with a prefix of at most 127 bytes.
    Log {
        /// The group.
        group: u16,
        /// The prefix.
        prefix: String,
    },
    /// Clears these bits of its mark.
    ClearMark(u32),
    /// Sets these bits of its mark.
    SetMark(u32),
    /// Gives it the address of the interface that it leaves by.
    Masquerade {
        /// Whether the port is chosen at random.
        random_fully: bool,
        /// Which ports are chosen from; needs a [`Match::Protocol`].
        to_ports: Option<PortRange>,
    },
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// It passes, as far as this base chain is concerned.
    Accept,
    /// It goes on in the chain, and comes back.
    Jump(String),
    /// It goes on in the chain, which ends where this one would have.
    Goto(String),
    /// It leaves the chain.
    Return,
    /// It is dropped.
    Drop,
}

impl Statement {
    /// The address of the interface that it leaves by, and whatever port.
    pub const MASQUERADE: Self = Self::Masquerade { random_fully: false, to_ports: None };
}

impl From<Verdict> for Statement {
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}

impl Verdict {
    /// The chain that it leads to.
    #[must_use]
    pub fn chain(&self) -> Option<&str> {
        match self {
            Self::Jump(chain) | Self::Goto(chain) => Some(chain),
            Self::Accept | Self::Return | Self::Drop => None,
        }
    }
}

impl Rule {
    /// A rule without a comment, that counts nothing.
    pub fn new(matches: impl Into<Vec<Match>>, statement: impl Into<Statement>) -> Self {
        let statement = statement.into();
        Self { matches: matches.into(), is_counted: false, statement, comment: None }
    }

    /// The same, counting.
    #[must_use]
    pub const fn counted(mut self) -> Self {
        self.is_counted = true;
        self
    }

    /// The same with a comment.
    #[must_use]
    pub fn commented(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }
}

/// As nft lists it, without what was counted (`--stateless`).
impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for it in &self.matches {
            write!(formatter, "{it} ")?;
        }
        if self.is_counted {
            formatter.write_str("counter ")?;
        }
        write!(formatter, "{}", self.statement)?;
        self.comment.iter().try_for_each(|it| write!(formatter, " comment \"{it}\""))
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verdict(verdict) => write!(formatter, "{verdict}"),
            Self::Map(fields, map) => write!(formatter, "{} vmap @{map}", Together(fields)),
            Self::Forward { name, .. } => write!(formatter, "fwd to \"{name}\""),
            Self::Redirect { is_ipv4, fields, map } => {
                let family = if *is_ipv4 { "ip" } else { "ip6" };
                write!(formatter, "dnat {family} to {} map @{map}", Together(fields))
            }
            Self::SetPriority { fields, map } => {
                write!(formatter, "meta priority set {} map @{map}", Together(fields))
            }
            Self::Remember { fields, data, map, seconds } => {
                let (fields, data) = (Together(fields), Together(data));
                let time = Time(*seconds);
                write!(formatter, "update @{map} {{ {fields} timeout {time} : {data} }}")
            }
            Self::Forget { fields, data, map } => {
                write!(formatter, "delete @{map} {{ {} : {} }}", Together(fields), Together(data))
            }
            Self::Reject => formatter.write_str("reject"),
            Self::Log { group, prefix } => {
                write!(formatter, "log prefix \"{prefix}\" group {group}")
            }
            Self::ClearMark(bits) => {
                write!(formatter, "meta mark set meta mark & {:#010x}", !bits)
            }
            Self::SetMark(bits) => write!(formatter, "meta mark set meta mark | {bits:#010x}"),
            Self::Masquerade { random_fully, to_ports } => {
                formatter.write_str("masquerade")?;
                if let Some(PortRange { first, last }) = to_ports {
                    write!(formatter, " to :{first}-{last}")?;
                }
                if *random_fully { formatter.write_str(" fully-random") } else { Ok(()) }
            }
        }
    }
}

/// A time in seconds, as nft tells it.
struct Time(u32);

impl fmt::Display for Time {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (minutes, seconds) = (self.0 / 60, self.0 % 60);
        let (hours, minutes) = (minutes / 60, minutes % 60);
        let (days, hours) = (hours / 24, hours % 24);
        for (count, unit) in [(days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s")] {
            if count > 0 || self.0 == 0 && unit == "s" {
                write!(formatter, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => formatter.write_str("accept"),
            Self::Jump(chain) => write!(formatter, "jump {chain}"),
            Self::Goto(chain) => write!(formatter, "goto {chain}"),
            Self::Return => formatter.write_str("return"),
            Self::Drop => formatter.write_str("drop"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iptables::Side;

    #[test]
    fn rules_print_as_nft_lists_them() {
        let network = |text: &str| text.parse().unwrap();
        let own = Match::Address(Side::Source, network("10.1.0.2"));
        let near = Match::NotAddress(Side::Destination, network("10.1.0.2/24"));
        let rule = Rule::new([own, near], Statement::MASQUERADE).commented("a b");
        assert_eq!(
            rule.to_string(),
            "ip saddr 10.1.0.2 ip daddr != 10.1.0.0/24 masquerade comment \"a b\""
        );
        let from = Match::InInterface("veth0".to_owned());
        assert_eq!(
            Rule::new([from], Verdict::Jump("x".to_owned())).counted().to_string(),
            "iifname \"veth0\" counter jump x"
        );
        let mac = Match::HardwareSource([2, 0, 0, 0, 0, 0xa]);
        assert_eq!(
            Rule::new([mac], Verdict::Return).to_string(),
            "ether saddr 02:00:00:00:00:0a return"
        );
    }
}
