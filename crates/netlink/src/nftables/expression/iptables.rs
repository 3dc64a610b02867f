//! Rules of iptables, as its programs for nf_tables write them.
//!
//! Interfaces, protocols and addresses are expressions of nf_tables; all else is matches and targets of iptables' own,
//! which nf_tables calls (`net/netfilter/nft_compat.c`) with the structures of `include/uapi/linux/netfilter`. Newer programs
//! (1.8.9 for one) write ports and marks as expressions as well, and load no more bytes of an address than its network's
//! prefix fills. Older ones (1.8.7) take some of that for a rule without them; all read what is written here.

use std::net::SocketAddr;

use ipnetwork::IpNetwork;
use ruleset::iptables::{Match, Packets, PortRange, Rule, Side, Target};
use ruleset::nft::{Family, Verdict};

use super::meta::{self, Meta};
use super::payload::{self, octets};
use super::{Comparison, Expressions, FIRST};
use crate::netfilter::message::Message;

/// The attributes of a rule.
const EXPRESSIONS: u16 = 4;
const COMPATIBLE: u16 = 5;

/// A rule of iptables, as its programs write it to nf_tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IptablesRule {
    /// The attributes of the rule, but for its place.
    attributes: Vec<u8>,
    /// The same as newer programs write them, where that is known and not the same.
    newer: Option<Vec<u8>>,
}

impl IptablesRule {
    /// A rule of a table of IPv4, or of IPv6; `None` where it has something that is not known here, and only the programs
    /// can write.
    #[must_use]
    pub fn new(is_ipv4: bool, rule: &Rule) -> Option<Self> {
        let has_mark = rule.matches.iter().any(|it| matches!(it, Match::Mark(_)));
        let newer = if has_mark { Some(encode(is_ipv4, rule, true)?) } else { None };
        Some(Self { attributes: encode(is_ipv4, rule, false)?, newer })
    }

    pub(in crate::nftables) fn attributes(&self) -> &[u8] {
        &self.attributes
    }

    /// As whichever programs write it.
    pub(in crate::nftables) fn alternatives(&self) -> impl Iterator<Item = &[u8]> {
        [Some(&*self.attributes), self.newer.as_deref()].into_iter().flatten()
    }
}

/// The attributes of a rule, with marks as newer programs write them, or older ones.
fn encode(is_ipv4: bool, rule: &Rule, has_newer_marks: bool) -> Option<Vec<u8>> {
    let family = if is_ipv4 { Family::Ip } else { Family::Ip6 };
    let protocol = rule.matches.iter().find_map(|it| match it {
        Match::Protocol(word) | Match::DestinationPort(word, _) => Some(*word),
        _ => None,
    });
    let protocol = protocol.map_or(Some(0), number)?;
    let mut is_known = true;
    let message = Message::default().nested(EXPRESSIONS, |message| {
        let mut it = Expressions { message, family, is_ipv4: Some(is_ipv4), protocol: None };
        if protocol != 0 {
            it.of_protocol(protocol);
        }
        for wanted in &rule.matches {
            match wanted {
                Match::Mark(bits) if !has_newer_marks => it.mark_of_old(*bits),
                wanted => is_known &= it.iptables_match(wanted).is_some(),
            }
        }
        it.push("counter", |data| data);
        is_known &= it.iptables_target(&rule.target).is_some();
        it.message
    });
    is_known.then_some(())?;
    // Matches that are only for one protocol are shown it by this (`nft_parse_compat`).
    let message = message.nested(COMPATIBLE, |it| {
        it.attribute(1, &u32::from(protocol).to_be_bytes()).attribute(2, &[0; 4])
    });
    Some(message.into_attributes())
}

fn number(protocol: &str) -> Option<u8> {
    match protocol {
        "tcp" => Some(payload::TCP),
        "udp" => Some(payload::UDP),
        "sctp" => Some(payload::SCTP),
        _ => None,
    }
}

impl Expressions {
    /// `None`: it is not known here.
    fn iptables_match(&mut self, wanted: &Match) -> Option<()> {
        use Comparison::{Equal, NotEqual};
        match wanted {
            Match::Address(side, network) => return self.masked(*side, network, Equal),
            Match::NotAddress(side, network) => return self.masked(*side, network, NotEqual),
            Match::InInterface(name) => return self.interface(Meta::InInterface, name, Equal),
            Match::OutInterface(name) => return self.interface(Meta::OutInterface, name, Equal),
            Match::NotOutInterface(name) => {
                return self.interface(Meta::OutInterface, name, NotEqual);
            }
            // It is the first thing that is compared.
            Match::Protocol(_) => {}
            Match::DestinationPort(protocol, ports) => self.port(protocol, *ports),
            Match::DestinationPorts(ports) => return self.multiport(ports),
            Match::Connection(Packets::Established) => self.established(),
            Match::LocalAddress(side) => self.local(*side),
            Match::Mark(bits) => {
                self.load_meta(Meta::Mark, FIRST);
                self.all_of(*bits);
            }
            Match::Comment(text) => return self.comment(text),
            _ => return None,
        }
        Some(())
    }

    /// `None`: it is not known here.
    fn iptables_target(&mut self, target: &Target) -> Option<()> {
        let is_ipv4 = self.family == Family::Ip;
        let verdict = match target {
            Target::Jump(chain) => Verdict::Jump(chain.clone()),
            Target::Return => Verdict::Return,
            Target::Accept => Verdict::Accept,
            Target::Drop => Verdict::Drop,
            Target::SetMark(bits) => {
                self.set_mark(*bits);
                return Some(());
            }
            Target::Translate(to) if to.is_ipv4() == is_ipv4 => {
                self.translate(*to);
                return Some(());
            }
            Target::Masquerade { random_fully: false, to_ports: None } => {
                self.masquerade_any(is_ipv4);
                return Some(());
            }
            _ => return None,
        };
        self.statement(&verdict.into());
        Some(())
    }

    /// A match or target of iptables, of a revision, with so many bytes of data: these at their places, and zeros.
    fn extension(
        &mut self,
        kind: &str,
        name: &str,
        revision: u32,
        parts: &[(usize, &[u8])],
        size: usize,
    ) {
        const NAME: u16 = 1;
        const REVISION: u16 = 2;
        const DATA: u16 = 3;
        let mut data = vec![0; size];
        for (place, part) in parts {
            if let Some(room) = data.get_mut(*place..place + part.len()) {
                room.copy_from_slice(part);
            }
        }
        self.push(kind, |it| {
            it.text(NAME, name).attribute(REVISION, &revision.to_be_bytes()).attribute(DATA, &data)
        });
    }

    /// Goes on where the address is in the network, or is not: all of the address is loaded. `None`: it is of the other
    /// family.
    fn masked(&mut self, side: Side, network: &IpNetwork, comparison: Comparison) -> Option<()> {
        (network.is_ipv4() == (self.family == Family::Ip)).then_some(())?;
        self.load(payload::address(side, network.is_ipv4()), FIRST);
        let (mask, bytes) = (octets(network.mask()), octets(network.network()));
        if mask.iter().any(|it| *it != u8::MAX) {
            self.mask(&mask);
        }
        self.compare(comparison, &bytes);
        Some(())
    }

    /// `struct xt_mark_mtinfo1`: the mark, and which bits of it are compared.
    fn mark_of_old(&mut self, bits: u32) {
        let bits = bits.to_ne_bytes();
        self.extension("match", "mark", 1, &[(0, &bits), (4, &bits)], 16);
    }

    /// Goes on where the interface is this one, or is not: as much is compared as the name has bytes, and the zero after
    /// it. `None`: it is none, or stands for all that begin so.
    fn interface(&mut self, key: Meta, name: &str, comparison: Comparison) -> Option<()> {
        let bytes = meta::name(name);
        let bytes = bytes.get(..=name.len()).filter(|_| !name.ends_with('+'))?;
        self.load_meta(key, FIRST);
        self.compare(comparison, bytes);
        Some(())
    }

    /// `struct xt_tcp`, `struct xt_udp`: the first and the last port of the source, then those of the destination. `struct
    /// xt_sctp_info`: first those of the destination, kinds of chunks of which none is asked for, and what is compared.
    fn port(&mut self, protocol: &str, ports: PortRange) {
        const TCP_OR_UDP: usize = 16;
        const SCTP: usize = 296;
        const SCTP_FLAGS: usize = 284;
        const NO_CHUNKS: [usize; 4] = [268, 271, 274, 277];
        const OF_DESTINATION: [u8; 4] = 2_u32.to_ne_bytes();
        let [first, last] = [ports.first, ports.last].map(u16::to_ne_bytes);
        if protocol == "sctp" {
            let mut parts = vec![(0, &first[..]), (2, &last), (SCTP_FLAGS, &OF_DESTINATION)];
            parts.extend(NO_CHUNKS.map(|place| (place, &[u8::MAX][..])));
            return self.extension("match", protocol, 0, &parts, SCTP);
        }
        let parts = [(2, &[u8::MAX; 2][..]), (4, &first), (6, &last)];
        self.extension("match", protocol, 0, &parts, TCP_OR_UDP);
    }

    /// `struct xt_multiport_v1`: that destinations are meant, how many numbers follow, places for fifteen, and for each
    /// whether a range begins with it.
    fn multiport(&mut self, ports: &[PortRange]) -> Option<()> {
        const MOST: usize = 15;
        const SIZE: usize = 48;
        const OF_DESTINATION: u8 = 1;
        let (mut numbers, mut begins) = (Vec::new(), Vec::new());
        for PortRange { first, last } in ports {
            numbers.extend(first.to_ne_bytes());
            begins.push(u8::from(first != last));
            if first != last {
                numbers.extend(last.to_ne_bytes());
                begins.push(0);
            }
        }
        (begins.len() <= MOST).then_some(())?;
        let head = [OF_DESTINATION, u8::try_from(begins.len()).ok()?];
        let parts = [(0, &head[..]), (2, &numbers), (2 + 2 * MOST, &begins)];
        self.extension("match", "multiport", 1, &parts, SIZE);
        Some(())
    }

    /// `struct xt_conntrack_mtinfo3`: among much else what is compared, and the states.
    fn established(&mut self) {
        const SIZE: usize = 168;
        const COMPARED: usize = 146;
        const STATES: usize = 150;
        /// `XT_CONNTRACK_STATE`.
        const STATE: [u8; 2] = 1_u16.to_ne_bytes();
        /// `XT_CONNTRACK_STATE_BIT` of `IP_CT_ESTABLISHED` and `IP_CT_RELATED`.
        const ESTABLISHED_OR_RELATED: [u8; 2] = 6_u16.to_ne_bytes();
        let parts = [(COMPARED, &STATE[..]), (STATES, &ESTABLISHED_OR_RELATED)];
        self.extension("match", "conntrack", 3, &parts, SIZE);
    }

    /// `struct xt_addrtype_info_v1`: types of the source, and of the destination.
    fn local(&mut self, side: Side) {
        const SIZE: usize = 8;
        /// `XT_ADDRTYPE_LOCAL`.
        const LOCAL: [u8; 2] = 4_u16.to_ne_bytes();
        let place = match side {
            Side::Source => 0,
            Side::Destination => 2,
        };
        self.extension("match", "addrtype", 1, &[(place, &LOCAL)], SIZE);
    }

    /// `struct nf_nat_range2`: what is given, the first and the last address, and the first and the last port.
    fn translate(&mut self, to: SocketAddr) {
        const SIZE: usize = 48;
        /// `NF_NAT_RANGE_MAP_IPS`, `NF_NAT_RANGE_PROTO_SPECIFIED`.
        const ADDRESS_AND_PORT: [u8; 4] = 3_u32.to_ne_bytes();
        let (address, port) = (octets(to.ip()), to.port().to_be_bytes());
        let parts =
            [(0, &ADDRESS_AND_PORT[..]), (4, &address), (20, &address), (36, &port), (38, &port)];
        self.extension("target", "DNAT", 2, &parts, SIZE);
    }

    /// `struct nf_nat_ipv4_multi_range_compat`: one range, of nothing; `struct nf_nat_range`.
    fn masquerade_any(&mut self, is_ipv4: bool) {
        const ONE: [u8; 4] = 1_u32.to_ne_bytes();
        let (parts, size) = if is_ipv4 { (&[(0, &ONE[..])][..], 24) } else { (&[][..], 40) };
        self.extension("target", "MASQUERADE", 0, parts, size);
    }

    /// `struct xt_mark_tginfo2`: what is set, and what is cleared before.
    fn set_mark(&mut self, bits: u32) {
        let bits = bits.to_ne_bytes();
        self.extension("target", "MARK", 2, &[(0, &bits), (4, &bits)], 8);
    }

    /// `struct xt_comment_info`: a text that ends with a zero.
    fn comment(&mut self, text: &str) -> Option<()> {
        const SIZE: usize = 256;
        (text.len() < SIZE).then_some(())?;
        self.extension("match", "comment", 0, &[(0, text.as_bytes())], SIZE);
        Some(())
    }
}
