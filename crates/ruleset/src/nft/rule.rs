//! Rules.

use std::fmt;

use ipnetwork::IpNetwork;

use crate::iptables::Side;

/// A rule: it applies to packets of which all matches hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What must be so.
    pub matches: Vec<Match>,
    /// What happens then.
    pub verdict: Verdict,
    /// A word for those who read the table, and by which a rule is known again: at most 254 bytes
    /// (nft itself writes 127).
    pub comment: Option<String>,
}

/// What must be so for a rule to apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// The address is in the network. In a table of both families a packet of the other one does not
    /// match.
    Address(Side, IpNetwork),
    /// The address is of the same family and not in the network.
    NotAddress(Side, IpNetwork),
    /// It is of ARP; in a table of frames.
    Arp,
    /// The bytes from this place of its network header on, or behind that, are these: 16 at most.
    HeaderBytes {
        /// Counted from the header's beginning.
        place: u32,
        /// The bytes.
        value: Vec<u8>,
    },
    /// It is a fragment, of IPv4. Needs a [`Match::Address`] of it.
    Fragment,
    /// It has a header of fragments, of IPv6.
    FragmentHeader,
    /// What it carries is of this number: ICMP (1) or ICMPv6 (58), behind all headers of IPv6.
    Protocol(u8),
    /// The first byte of what its network header carries is this one; no fragment but the first has it.
    FirstByte(u8),
    /// It came through this interface.
    InInterface(String),
    /// The hardware address that it comes from.
    HardwareSource([u8; 6]),
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Goes on in the chain, and comes back.
    Jump(String),
    /// Goes on in the chain, which ends where this one would have.
    Goto(String),
    /// Leaves the chain.
    Return,
    /// Drops it.
    Drop,
    /// The same, and counts it.
    CountedDrop,
    /// Gives it the address of the interface that it leaves by.
    Masquerade,
}

impl Rule {
    /// A rule without a comment.
    pub fn new(matches: impl Into<Vec<Match>>, verdict: Verdict) -> Self {
        Self { matches: matches.into(), verdict, comment: None }
    }

    /// The same with a comment.
    #[must_use]
    pub fn commented(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for it in &self.matches {
            write!(formatter, "{it} ")?;
        }
        write!(formatter, "{}", self.verdict)?;
        self.comment.iter().try_for_each(|it| write!(formatter, " comment \"{it}\""))
    }
}

impl fmt::Display for Match {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(side, network) => address(formatter, *side, "", network),
            Self::NotAddress(side, network) => address(formatter, *side, "!= ", network),
            Self::Arp => formatter.write_str("meta protocol arp"),
            Self::HeaderBytes { place, value } => {
                let number = value.iter().fold(0, |number, byte| number << 8 | u128::from(*byte));
                write!(formatter, "@nh,{},{} {number:#x}", place * 8, value.len() * 8)
            }
            Self::Fragment => formatter.write_str("ip frag-off & 16383 != 0"),
            Self::FragmentHeader => formatter.write_str("exthdr frag exists"),
            Self::Protocol(1) => formatter.write_str("meta l4proto icmp"),
            Self::Protocol(58) => formatter.write_str("meta l4proto ipv6-icmp"),
            Self::Protocol(number) => write!(formatter, "meta l4proto {number}"),
            Self::FirstByte(value) => write!(formatter, "@th,0,8 {value:#x}"),
            Self::InInterface(name) => write!(formatter, "iifname \"{name}\""),
            Self::HardwareSource([a, b, c, d, e, f]) => {
                write!(formatter, "ether saddr {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
            }
        }
    }
}

fn address(
    formatter: &mut fmt::Formatter<'_>,
    side: Side,
    operator: &str,
    network: &IpNetwork,
) -> fmt::Result {
    let (header, full) = if network.is_ipv4() { ("ip", 32) } else { ("ip6", 128) };
    let field = match side {
        Side::Source => "saddr",
        Side::Destination => "daddr",
    };
    write!(formatter, "{header} {field} {operator}{}", network.network())?;
    match network.prefix() {
        prefix if prefix == full => Ok(()),
        prefix => write!(formatter, "/{prefix}"),
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Jump(chain) => write!(formatter, "jump {chain}"),
            Self::Goto(chain) => write!(formatter, "goto {chain}"),
            Self::Return => formatter.write_str("return"),
            Self::Drop => formatter.write_str("drop"),
            Self::CountedDrop => formatter.write_str("counter drop"),
            Self::Masquerade => formatter.write_str("masquerade"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_print_as_nft_lists_them() {
        let network = |text: &str| text.parse().unwrap();
        let own = Match::Address(Side::Source, network("10.1.0.2"));
        let near = Match::NotAddress(Side::Destination, network("10.1.0.2/24"));
        let rule = Rule::new([own, near], Verdict::Masquerade).commented("a b");
        assert_eq!(
            rule.to_string(),
            "ip saddr 10.1.0.2 ip daddr != 10.1.0.0/24 masquerade comment \"a b\""
        );
        let from = Match::InInterface("veth0".to_owned());
        assert_eq!(
            Rule::new([from], Verdict::Jump("x".to_owned())).to_string(),
            "iifname \"veth0\" jump x"
        );
        let mac = Match::HardwareSource([2, 0, 0, 0, 0, 0xa]);
        assert_eq!(
            Rule::new([mac], Verdict::Return).to_string(),
            "ether saddr 02:00:00:00:00:0a return"
        );
    }
}
