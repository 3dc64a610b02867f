//! What rules are made of, as far as it is written here: each expression reads or fills registers,
//! and one that does not match ends the rule.

mod iptables;
mod meta;
mod payload;
mod statement;

use std::net::IpAddr;

use ruleset::iptables::{Packets, PortRange, Side};
use ruleset::nft::{Family, Field, FrameKind, FrameType, Match, Rule, mask};

use crate::netfilter::message::Message;
pub use iptables::IptablesRule;
use meta::{Conntrack, Meta};
use payload::{Header, Payload};
pub(super) use statement::{read_verdict, verdict_data};

const LIST_ELEMENT: u16 = 1;
const NAME: u16 = 1;
const DATA: u16 = 2;
pub(super) const DATA_VALUE: u16 = 1;

/// A register: there are sixteen of a word each (`NFT_REG32_00`), and what is longer fills several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Register(u32);

/// The first.
const FIRST: Register = Register(8);

impl Register {
    /// As the kernel tells it (`nft_dump_register`): every fourth of a word is one of the four that were there before them.
    const fn bytes(self) -> [u8; 4] {
        const WORDS: u32 = 4;
        const FIRST_WORD: u32 = 8;
        let is_old = self.0 >= FIRST_WORD && self.0.is_multiple_of(WORDS);
        let number = if is_old { self.0 / WORDS - 1 } else { self.0 };
        number.to_be_bytes()
    }

    /// The one behind so many bytes in this.
    fn behind(self, bytes: usize) -> Self {
        Self(self.0 + u32::try_from(bytes.div_ceil(4)).unwrap_or_default())
    }
}

/// `NFT_CMP_EQ` and those after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal = 0,
    NotEqual = 1,
    Below = 2,
    AtMost = 3,
    Above = 4,
    AtLeast = 5,
}

/// The expressions of a rule, as they are written.
struct Expressions {
    message: Message,
    family: Family,
    /// Of which IP family it is known to be by now, and of which protocol.
    is_ipv4: Option<bool>,
    protocol: Option<u8>,
}

/// All of a rule's.
pub(super) fn expressions(message: Message, family: Family, rule: &Rule) -> Message {
    let mut it = Expressions { message, family, is_ipv4: None, protocol: None };
    rule.matches.iter().for_each(|wanted| it.matches(wanted));
    if rule.is_counted {
        it.push("counter", |data| data);
    }
    it.statement(&rule.statement);
    it.message
}

impl Expressions {
    fn push(&mut self, name: &str, fill: impl FnOnce(Message) -> Message) {
        let message = std::mem::take(&mut self.message);
        self.message = message.nested(LIST_ELEMENT, |it| it.text(NAME, name).nested(DATA, fill));
    }

    fn matches(&mut self, wanted: &Match) {
        use Comparison::{Equal, NotEqual};
        let to = Side::Destination;
        match wanted {
            Match::Family { is_ipv4 } => self.of_family(*is_ipv4),
            Match::Address(side, network) => self.network(*side, network, Comparison::Equal),
            Match::NotAddress(side, network) => self.network(*side, network, Comparison::NotEqual),
            Match::ToBroadcast => self.address_is(to, Equal, meta::TYPE_BROADCAST),
            Match::ToLocal => self.address_is(to, Equal, meta::TYPE_LOCAL),
            Match::NotToLocal => self.address_is(to, NotEqual, meta::TYPE_LOCAL),
            Match::FromLocal => self.address_is(Side::Source, Equal, meta::TYPE_LOCAL),
            Match::In(fields, set) => self.look_up(fields, set, false),
            Match::NotIn(fields, set) => self.look_up(fields, set, true),
            Match::Arp => self.of_type(payload::frame_type(FrameType::Arp)),
            Match::NotFrameType(kind) => {
                self.load(payload::FRAME_TYPE, FIRST);
                self.compare(NotEqual, &payload::frame_type(*kind).to_be_bytes());
            }
            Match::HeaderBytes { place, value } => {
                let bytes = Payload { header: Header::Network, offset: *place, size: value.len() };
                self.bytes(bytes, value);
            }
            Match::Fragment => self.fragment(),
            Match::FragmentHeader => self.fragment_header(),
            Match::Protocol(number) => self.of_protocol(*number),
            Match::DestinationPort(protocol, ports) => self.destination_port(*protocol, *ports),
            Match::DestinationPortIn(protocol, set) => {
                self.of_protocol(*protocol);
                self.look_up(&[Field::DestinationPort], set, false);
            }
            Match::TcpWithoutSyn => self.tcp_without_syn(),
            Match::SctpWithoutInit => self.sctp_without_init(),
            Match::Icmp6Type(kind) => {
                self.of_family(false);
                self.of_protocol(payload::ICMPV6);
                self.bytes(payload::FIRST_BYTE, &[*kind]);
            }
            Match::HopLimit(hops) => {
                self.of_family(false);
                self.bytes(payload::HOP_LIMIT, &[*hops]);
            }
            Match::LongerThan(bytes) => self.longer_than(*bytes),
            Match::FirstByte(value) => self.bytes(payload::FIRST_BYTE, &[*value]),
            Match::InInterface(name) => self.meta(Meta::InInterface, &meta::name(name)),
            Match::InLink { link, .. } => self.meta(Meta::InLink, &link.to_ne_bytes()),
            Match::NotInInterface(name) => {
                self.load_meta(Meta::InInterface, FIRST);
                self.compare(NotEqual, &meta::name(name));
            }
            Match::InInterfaces(prefix) => {
                self.load_meta(Meta::InInterface, FIRST);
                // As much as is compared.
                self.compare(Equal, &prefix.bytes().take(meta::NAME_ROOM).collect::<Vec<_>>());
            }
            Match::Frame(FrameKind::Broadcast) => self.meta(Meta::FrameKind, &[meta::BROADCAST]),
            Match::Frame(FrameKind::Multicast) => self.meta(Meta::FrameKind, &[meta::MULTICAST]),
            Match::HardwareSource(address) => self.bytes(payload::HARDWARE_SOURCE, address),
            Match::Connection(packets) => self.connection(*packets),
            Match::New => {
                self.load_conntrack(Conntrack::State);
                self.any_of(meta::NEW);
            }
            Match::Translated => {
                self.load_conntrack(Conntrack::Status);
                self.any_of(meta::DESTINATION_TRANSLATED);
            }
            Match::Mark(bits) => {
                self.load_meta(Meta::Mark, FIRST);
                self.all_of(*bits);
            }
            Match::ConnectionMark(bits) => {
                self.load_conntrack(Conntrack::Mark);
                self.all_of(*bits);
            }
            Match::AtMostEachMinute(count) => self.limit(*count),
            Match::ByChance { of_million } => self.by_chance(*of_million),
        }
    }

    fn tcp_without_syn(&mut self) {
        self.of_protocol(payload::TCP);
        self.load(payload::TCP_FLAGS, FIRST);
        self.mask(&[payload::SYN | payload::FIN_RST_ACK]);
        self.compare(Comparison::NotEqual, &[payload::SYN]);
    }

    fn sctp_without_init(&mut self) {
        self.of_protocol(payload::SCTP);
        self.load(payload::SCTP_CHUNK, FIRST);
        self.compare(Comparison::NotEqual, &[payload::INIT]);
    }

    fn destination_port(&mut self, protocol: u8, ports: PortRange) {
        self.of_protocol(protocol);
        self.load(payload::DESTINATION_PORT, FIRST);
        let (first, last) = (ports.first.to_be_bytes(), ports.last.to_be_bytes());
        if first == last {
            self.compare(Comparison::Equal, &first);
        } else {
            self.compare(Comparison::AtLeast, &first);
            self.compare(Comparison::AtMost, &last);
        }
    }

    fn compare(&mut self, comparison: Comparison, value: &[u8]) {
        const FROM: u16 = 1;
        const OPERATOR: u16 = 2;
        const VALUE: u16 = 3;
        self.push("cmp", |it| {
            it.attribute(FROM, &FIRST.bytes())
                .attribute(OPERATOR, &(comparison as u32).to_be_bytes())
                .nested(VALUE, |data| data.attribute(DATA_VALUE, value))
        });
    }

    fn mask(&mut self, mask: &[u8]) {
        self.mask_and_flip(FIRST, mask, &vec![0; mask.len()]);
    }

    /// What was loaded is what of it is in `mask`, with the bits of `flipped` turned round.
    fn mask_and_flip(&mut self, register: Register, mask: &[u8], flipped: &[u8]) {
        const FROM: u16 = 1;
        const TO: u16 = 2;
        const LENGTH: u16 = 3;
        const MASK: u16 = 4;
        const XOR: u16 = 5;
        let length = u32::try_from(mask.len()).unwrap_or_default();
        self.push("bitwise", |it| {
            it.attribute(FROM, &register.bytes())
                .attribute(TO, &register.bytes())
                .attribute(LENGTH, &length.to_be_bytes())
                .nested(MASK, |data| data.attribute(DATA_VALUE, mask))
                .nested(XOR, |data| data.attribute(DATA_VALUE, flipped))
        });
    }

    /// Goes on where all of these bits of a word are set.
    fn all_of(&mut self, bits: u32) {
        self.mask(&bits.to_ne_bytes());
        self.compare(Comparison::Equal, &bits.to_ne_bytes());
    }

    /// Goes on where any of these bits of a word is set.
    fn any_of(&mut self, bits: u32) {
        self.mask(&bits.to_ne_bytes());
        self.compare(Comparison::NotEqual, &[0; 4]);
    }

    /// Loads what is looked up, one field behind the other, each at the beginning of a word.
    fn load_fields(&mut self, fields: &[Field]) {
        self.load_fields_from(FIRST, fields);
    }

    /// The same from a register on; the one behind them.
    fn load_fields_from(&mut self, mut register: Register, fields: &[Field]) -> Register {
        for field in fields {
            match *field {
                Field::Ipv4(_) => self.of_family(true),
                Field::Ipv6(_) => self.of_family(false),
                Field::Network { is_ipv4, .. } | Field::SourceHash { is_ipv4, .. } => {
                    self.of_family(is_ipv4);
                }
                _ => {}
            }
        }
        for field in fields {
            let size = match *field {
                Field::Ipv4(side) => self.load(payload::address(side, true), register),
                Field::Ipv6(side) => self.load(payload::address(side, false), register),
                Field::Network { side, is_ipv4, prefix } => {
                    let size = self.load(payload::address(side, is_ipv4), register);
                    let mask = match mask(is_ipv4, prefix) {
                        IpAddr::V4(it) => it.octets().to_vec(),
                        IpAddr::V6(it) => it.octets().to_vec(),
                    };
                    self.mask_and_flip(register, &mask, &vec![0; mask.len()]);
                    size
                }
                Field::Protocol => self.load_meta(Meta::Protocol, register),
                Field::DestinationPort => self.load(payload::DESTINATION_PORT, register),
                Field::InInterface => self.load_meta(Meta::InInterface, register),
                Field::OutInterface => self.load_meta(Meta::OutInterface, register),
                Field::Priority => self.load_meta(Meta::Priority, register),
                Field::Random { below } => self.random(below, register),
                Field::SourceHash { is_ipv4, below } => {
                    // What is hashed is not looked up: the next field comes into its place.
                    let of = register.behind(4);
                    let size = self.load(payload::address(Side::Source, is_ipv4), of);
                    self.hash((of, size), below, register)
                }
            };
            register = register.behind(size);
        }
        register
    }

    /// As many bytes become a number below this one.
    fn hash(&mut self, (of, size): (Register, usize), below: u32, register: Register) -> usize {
        const FROM: u16 = 1;
        const TO: u16 = 2;
        const LENGTH: u16 = 3;
        const MODULUS: u16 = 4;
        /// Given, so that all nodes, and the same one later, come to the same number (`jhash` of the kernel is seeded by
        /// chance otherwise).
        const SEED: u16 = 5;
        const TYPE: u16 = 7;
        const JENKINS: u32 = 0;
        let length = u32::try_from(size).unwrap_or_default();
        self.push("hash", |it| {
            it.attribute(FROM, &of.bytes())
                .attribute(TO, &register.bytes())
                .attribute(LENGTH, &length.to_be_bytes())
                .attribute(MODULUS, &below.to_be_bytes())
                .attribute(SEED, &1_u32.to_be_bytes())
                .attribute(TYPE, &JENKINS.to_be_bytes())
        });
        4
    }

    fn look_up(&mut self, fields: &[Field], set: &str, is_inverted: bool) {
        const FLAGS: u16 = 5;
        const INVERTED: u32 = 1;
        self.load_fields(fields);
        self.push("lookup", |it| {
            let it = lookup(it, set);
            if is_inverted { it.attribute(FLAGS, &INVERTED.to_be_bytes()) } else { it }
        });
    }

    fn connection(&mut self, packets: Packets) {
        const INVALID: u32 = 1 << 0;
        const ESTABLISHED: u32 = 1 << 1;
        const RELATED: u32 = 1 << 2;
        let state = match packets {
            Packets::Established => ESTABLISHED | RELATED,
            Packets::Related | Packets::OfNoAnswer => RELATED,
            Packets::Invalid => INVALID,
        };
        self.load_conntrack(Conntrack::State);
        self.any_of(state);
        if packets == Packets::OfNoAnswer {
            self.load_conntrack(Conntrack::Direction);
            self.compare(Comparison::Equal, &[meta::ORIGINAL]);
            self.load_conntrack(Conntrack::Status);
            self.mask(&meta::SEEN_REPLY.to_ne_bytes());
            self.compare(Comparison::Equal, &[0; 4]);
        }
    }

    /// More and less are compared byte by byte, and numbers of this machine's byte order turned round for it.
    fn put_in_network_order(&mut self) {
        const FROM: u16 = 1;
        const TO: u16 = 2;
        const OPERATION: u16 = 3;
        const LENGTH: u16 = 4;
        const SIZE: u16 = 5;
        const TO_NETWORK: u32 = 1;
        self.push("byteorder", |it| {
            it.attribute(FROM, &FIRST.bytes())
                .attribute(TO, &FIRST.bytes())
                .attribute(OPERATION, &TO_NETWORK.to_be_bytes())
                .attribute(LENGTH, &4_u32.to_be_bytes())
                .attribute(SIZE, &4_u32.to_be_bytes())
        });
    }

    /// A number below this one.
    fn random(&mut self, below: u32, register: Register) -> usize {
        const TO: u16 = 1;
        const MODULUS: u16 = 2;
        const TYPE: u16 = 3;
        const OFFSET: u16 = 4;
        const RANDOM: u32 = 1;
        self.push("numgen", |it| {
            it.attribute(TO, &register.bytes())
                .attribute(MODULUS, &below.to_be_bytes())
                .attribute(TYPE, &RANDOM.to_be_bytes())
                .attribute(OFFSET, &0_u32.to_be_bytes())
        });
        4
    }

    fn by_chance(&mut self, of_million: u32) {
        self.random(1_000_000, FIRST);
        self.put_in_network_order();
        self.compare(Comparison::Below, &of_million.to_be_bytes());
    }

    fn limit(&mut self, each_minute: u32) {
        const RATE: u16 = 1;
        const UNIT: u16 = 2;
        const BURST: u16 = 3;
        const MINUTE: u64 = 60;
        self.push("limit", |it| {
            it.attribute(RATE, &u64::from(each_minute).to_be_bytes())
                .attribute(UNIT, &MINUTE.to_be_bytes())
                .attribute(BURST, &each_minute.to_be_bytes())
        });
    }
}

/// What says where something is looked up, and in which set or map.
fn lookup(data: Message, set: &str) -> Message {
    const SET: u16 = 1;
    const FROM: u16 = 2;
    data.text(SET, set).attribute(FROM, &FIRST.bytes())
}
