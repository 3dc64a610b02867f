//! A rule, in the words of iptables.

use std::fmt;
use std::net::SocketAddr;

use ipnetwork::IpNetwork;

use crate::Label;

/// Which end of a packet a match looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Where it comes from.
    Source,
    /// Where it goes to.
    Destination,
}

/// Ports from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

/// What the connection that a packet belongs to is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Packets {
    /// Of known connections, and what belongs to them.
    Established,
    /// What belongs to known connections: it tells of errors.
    Related,
    /// Of none that makes sense.
    Invalid,
    /// Errors about an answer in a flow that has had none.
    OfNoAnswer,
}

/// What must be so for a rule to apply.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Match {
    /// The address is in the network.
    Address(Side, IpNetwork),
    /// The address is not in the network.
    NotAddress(Side, IpNetwork),
    /// The address is of one of these kinds to the node: `LOCAL`.
    NotLocalAddress(Side),
    /// The address is one of the node's own: `LOCAL`.
    LocalAddress(Side),
    /// The address is one that a network of the node has for all in it: `BROADCAST`.
    BroadcastAddress(Side),
    /// The address is in the set.
    InSet(Side, String),
    /// The address is not in the set.
    NotInSet(Side, String),
    /// Address, protocol and port are in the set; of the port, that of the same side.
    PortInSet(Side, String),
    /// It came through this interface; with a `+` at its end, one whose name begins so.
    InInterface(String),
    /// It leaves through this interface.
    OutInterface(String),
    /// It does not leave through this interface.
    NotOutInterface(String),
    /// It came through this port of a bridge; as above.
    InBridgePort(String),
    /// It came through some port of a bridge.
    ByBridge,
    /// It goes from port to port of a bridge.
    Bridged,
    /// It does not.
    NotBridged,
    /// Of what goes from port to port of a bridge: it leaves through this one; with a `+` at its end,
    /// one whose name begins so.
    OutBridgePort(String),
    /// The frame that it came in was for one station.
    FrameToOne,
    /// It was for several, or for all.
    FrameToSeveral,
    /// Its protocol: `tcp`, `udp`, `sctp`.
    Protocol(&'static str),
    /// Its protocol, `tcp` or `udp`, and its destination port: nf_tables compares them by itself,
    /// and does not have to call a match.
    DestinationPort(&'static str, PortRange),
    /// It is of TCP, and begins no connection.
    TcpWithoutSyn,
    /// It is of SCTP, and begins no association.
    SctpWithoutInit,
    /// Its destination port; at most 15, a range counting as two. Needs a [`Match::Protocol`].
    DestinationPorts(Vec<PortRange>),
    /// Its type of ICMPv6 message.
    Icmp6Type(u8),
    /// Its hop limit, of IPv6.
    HopLimit(u8),
    /// It is longer than so many bytes. What the match takes for one of 40 bytes at most, an empty packet of IPv6, is
    /// so, too: it may be one of more than it can count (`length_mt6`).
    LongerThan(u16),
    /// Its connection.
    Connection(Packets),
    /// These bits of its mark are set.
    Mark(u32),
    /// These bits of its connection's mark are set.
    ConnectionMark(u32),
    /// No more than so many a minute, in bursts of as many.
    AtMostEachMinute(u32),
    /// By chance: so many of a million packets.
    ByChance {
        /// How many, at most all.
        of_million: u32,
    },
    /// Always so: at most 255 bytes for those who read the tables.
    Comment(String),
    /// What the programs of iptables read these words as.
    Words(String),
}

/// What a rule does with a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// Goes on in the chain, and comes back.
    Jump(String),
    /// Goes on in the chain, which ends where this one would have.
    Goto(String),
    /// Leaves the chain.
    Return,
    /// Lets it pass, as far as the table is concerned.
    Accept,
    /// Drops it.
    Drop,
    /// Tells the sender that it was refused.
    Reject,
    /// Sets these bits of its mark.
    SetMark(u32),
    /// Clears these bits of its mark.
    ClearMark(u32),
    /// Copies it to a group of netfilter's log, with a prefix of at most 64 bytes.
    Log {
        /// The group.
        group: u16,
        /// The prefix.
        prefix: String,
    },
    /// Sends it to another address and port.
    Translate(SocketAddr),
    /// Gives it the node's address, and another source port.
    Masquerade {
        /// Whether the port is chosen at random.
        random_fully: bool,
        /// Which ports are chosen from; needs a [`Match::Protocol`].
        to_ports: Option<PortRange>,
    },
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// What all must be so.
    pub matches: Vec<Match>,
    /// What happens then.
    pub target: Target,
    /// A word for those who read the tables.
    pub label: Option<Label>,
}

impl Rule {
    /// A rule without a label.
    pub fn new(matches: impl Into<Vec<Match>>, target: Target) -> Self {
        Self { matches: matches.into(), target, label: None }
    }

    /// Whether it does nothing but lead each packet to another chain.
    #[must_use]
    pub const fn is_bare_jump(&self) -> bool {
        self.matches.is_empty() && matches!(self.target, Target::Jump(_))
    }

    /// The same, with a word for those who read the tables.
    #[must_use]
    pub fn labelled(mut self, label: &str) -> Self {
        self.label = Some(Label::new(label));
        self
    }
}

/// As `iptables-restore` reads it after `-A CHAIN`, but for the comment.
impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for it in &self.matches {
            write!(formatter, "{it} ")?;
        }
        write!(formatter, "{}", self.target)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(side, network) => write!(formatter, "{} {network}", side.flag()),
            Self::NotAddress(side, network) => write!(formatter, "! {} {network}", side.flag()),
            Self::NotLocalAddress(side) => {
                write!(formatter, "-m addrtype ! --{}-type LOCAL", side.word())
            }
            Self::LocalAddress(side) => {
                write!(formatter, "-m addrtype --{}-type LOCAL", side.word())
            }
            Self::BroadcastAddress(side) => {
                write!(formatter, "-m addrtype --{}-type BROADCAST", side.word())
            }
            Self::InSet(side, set) => write!(formatter, "-m set --match-set {set} {}", side.word()),
            Self::NotInSet(side, set) => {
                write!(formatter, "-m set ! --match-set {set} {}", side.word())
            }
            Self::PortInSet(side, set) => {
                write!(formatter, "-m set --match-set {set} {0},{0}", side.word())
            }
            Self::InInterface(name) => write!(formatter, "-i {name}"),
            Self::OutInterface(name) => write!(formatter, "-o {name}"),
            Self::NotOutInterface(name) => write!(formatter, "! -o {name}"),
            Self::InBridgePort(name) => write!(formatter, "-m physdev --physdev-in {name}"),
            Self::ByBridge => formatter.write_str("-m physdev --physdev-is-in"),
            Self::Bridged => formatter.write_str("-m physdev --physdev-is-bridged"),
            Self::NotBridged => formatter.write_str("-m physdev ! --physdev-is-bridged"),
            Self::OutBridgePort(name) => write!(formatter, "-m physdev --physdev-out {name}"),
            Self::FrameToOne => formatter.write_str("-m pkttype --pkt-type unicast"),
            Self::FrameToSeveral => formatter.write_str("-m pkttype ! --pkt-type unicast"),
            Self::Protocol(protocol) => write!(formatter, "-p {protocol}"),
            Self::DestinationPort(protocol, range) => {
                write!(formatter, "-p {protocol} -m {protocol} --dport {range}")
            }
            Self::TcpWithoutSyn => formatter.write_str("-p tcp -m tcp ! --syn"),
            Self::SctpWithoutInit => {
                formatter.write_str("-p sctp -m sctp ! --chunk-types any INIT")
            }
            Self::DestinationPorts(ranges) => {
                formatter.write_str("-m multiport --dports ")?;
                list(formatter, ranges)
            }
            Self::Icmp6Type(kind) => {
                write!(formatter, "-p ipv6-icmp -m icmp6 --icmpv6-type {kind}")
            }
            Self::HopLimit(hops) => write!(formatter, "-m hl --hl-eq {hops}"),
            Self::LongerThan(bytes) => {
                write!(formatter, "-m length ! --length 41:{bytes}")
            }
            Self::Connection(packets) => write!(formatter, "-m conntrack --ctstate {packets}"),
            Self::Mark(bits) => write!(formatter, "-m mark --mark {bits:#x}/{bits:#x}"),
            Self::ConnectionMark(bits) => {
                write!(formatter, "-m connmark --mark {bits:#x}/{bits:#x}")
            }
            Self::AtMostEachMinute(count) => {
                write!(formatter, "-m limit --limit {count}/min --limit-burst {count}")
            }
            Self::ByChance { of_million } => {
                let (whole, part) = (of_million / 1_000_000, of_million % 1_000_000);
                write!(formatter, "-m statistic --mode random --probability {whole}.{part:06}")
            }
            Self::Comment(text) => {
                formatter.write_str("-m comment --comment ")?;
                quoted(formatter, text)
            }
            Self::Words(words) => formatter.write_str(words),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Jump(chain) => write!(formatter, "-j {chain}"),
            Self::Goto(chain) => write!(formatter, "-g {chain}"),
            Self::Return => formatter.write_str("-j RETURN"),
            Self::Accept => formatter.write_str("-j ACCEPT"),
            Self::Drop => formatter.write_str("-j DROP"),
            Self::Reject => formatter.write_str("-j REJECT"),
            Self::SetMark(bits) => write!(formatter, "-j MARK --set-xmark {bits:#x}/{bits:#x}"),
            Self::ClearMark(bits) => write!(formatter, "-j MARK --set-xmark 0x0/{bits:#x}"),
            Self::Log { group, prefix } => {
                write!(formatter, "-j NFLOG --nflog-group {group} --nflog-prefix \"{prefix}\"")
            }
            Self::Translate(to) => write!(formatter, "-j DNAT --to-destination {to}"),
            Self::Masquerade { random_fully, to_ports } => {
                formatter.write_str("-j MASQUERADE")?;
                if let Some(PortRange { first, last }) = to_ports {
                    write!(formatter, " --to-ports {first}-{last}")?;
                }
                if *random_fully { formatter.write_str(" --random-fully") } else { Ok(()) }
            }
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.first, self.last) {
            (first, last) if first == last => write!(formatter, "{first}"),
            (first, last) => write!(formatter, "{first}:{last}"),
        }
    }
}

impl fmt::Display for Packets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Established => "RELATED,ESTABLISHED",
            Self::Related => "RELATED",
            Self::Invalid => "INVALID",
            Self::OfNoAnswer => "RELATED --ctdir ORIGINAL ! --ctstatus SEEN_REPLY",
        })
    }
}

impl Side {
    const fn flag(self) -> &'static str {
        match self {
            Self::Source => "-s",
            Self::Destination => "-d",
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Source => "src",
            Self::Destination => "dst",
        }
    }
}

/// As `iptables-save` writes a text (`xtables_save_string`).
fn quoted(formatter: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let is_plain = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | '-');
    if !text.is_empty() && text.chars().all(is_plain) {
        return formatter.write_str(text);
    }
    formatter.write_str("\"")?;
    for it in text.chars() {
        if matches!(it, '"' | '\\' | '\'') {
            formatter.write_str("\\")?;
        }
        write!(formatter, "{it}")?;
    }
    formatter.write_str("\"")
}

fn list(formatter: &mut fmt::Formatter<'_>, ranges: &[PortRange]) -> fmt::Result {
    for (index, range) in ranges.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(formatter, "{comma}{range}")?;
    }
    Ok(())
}
