//! What the kernel knows of a packet besides its bytes.

use ruleset::iptables::Side;

use super::{Comparison, Expressions, FIRST, Register};
use crate::netfilter::message::{IPV4, IPV6};

/// The name of a link is shorter (`IFNAMSIZ`).
pub(super) const NAME_ROOM: usize = 16;

/// `PACKET_BROADCAST`, `PACKET_MULTICAST`.
pub(super) const BROADCAST: u8 = 1;
pub(super) const MULTICAST: u8 = 2;
/// `IP_CT_DIR_ORIGINAL`.
pub(super) const ORIGINAL: u8 = 0;
/// `IPS_SEEN_REPLY`.
pub(super) const SEEN_REPLY: u32 = 1 << 1;
/// `NF_CT_STATE_BIT(IP_CT_NEW)`.
pub(super) const NEW: u32 = 1 << 3;
/// `IPS_DST_NAT`.
pub(super) const DESTINATION_TRANSLATED: u32 = 1 << 5;

/// `RTN_LOCAL`, `RTN_BROADCAST`.
pub(super) const TYPE_LOCAL: u32 = 2;
pub(super) const TYPE_BROADCAST: u32 = 3;

/// Keys of the expression `meta` (`NFT_META_LEN` ...).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meta {
    Length = 0,
    FrameType = 1,
    Priority = 2,
    Mark = 3,
    InLink = 4,
    InInterface = 6,
    OutInterface = 7,
    Family = 15,
    Protocol = 16,
    FrameKind = 19,
}

impl Meta {
    const fn size(self) -> usize {
        match self {
            Self::Family | Self::Protocol | Self::FrameKind => 1,
            Self::FrameType => 2,
            Self::Length | Self::Priority | Self::Mark | Self::InLink => 4,
            Self::InInterface | Self::OutInterface => NAME_ROOM,
        }
    }
}

/// Keys of the expression `ct` (`NFT_CT_STATE` ...).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conntrack {
    State = 0,
    Direction = 1,
    Status = 2,
    Mark = 3,
}

impl Expressions {
    /// Loads what the kernel knows; how many bytes.
    pub(super) fn load_meta(&mut self, key: Meta, register: Register) -> usize {
        const TO: u16 = 1;
        const KEY: u16 = 2;
        self.push("meta", |it| {
            it.attribute(TO, &register.bytes()).attribute(KEY, &(key as u32).to_be_bytes())
        });
        key.size()
    }

    /// Goes on where it is this.
    pub(super) fn meta(&mut self, key: Meta, value: &[u8]) {
        self.load_meta(key, FIRST);
        self.compare(Comparison::Equal, value);
    }

    /// Changes some bits of its mark: those that are not in `kept` are cleared, and those of `set` turned round.
    pub(super) fn change_mark(&mut self, kept: u32, set: u32) {
        self.load_meta(Meta::Mark, FIRST);
        self.mask_and_flip(super::FIRST, &kept.to_ne_bytes(), &set.to_ne_bytes());
        self.set_meta(Meta::Mark);
    }

    /// It becomes what is in the first register.
    pub(super) fn set_meta(&mut self, key: Meta) {
        const KEY: u16 = 2;
        const FROM: u16 = 3;
        self.push("meta", |it| {
            it.attribute(KEY, &(key as u32).to_be_bytes()).attribute(FROM, &FIRST.bytes())
        });
    }

    pub(super) fn load_conntrack(&mut self, key: Conntrack) {
        const TO: u16 = 1;
        const KEY: u16 = 2;
        self.push("ct", |it| {
            it.attribute(TO, &FIRST.bytes()).attribute(KEY, &(key as u32).to_be_bytes())
        });
    }

    pub(super) fn longer_than(&mut self, bytes: u32) {
        self.load_meta(Meta::Length, FIRST);
        self.put_in_network_order();
        self.compare(Comparison::Above, &bytes.to_be_bytes());
    }

    /// Goes on where an address is, or is not, of this type for the node's routes.
    pub(super) fn address_is(&mut self, side: Side, comparison: Comparison, kind: u32) {
        const TO: u16 = 1;
        const RESULT: u16 = 2;
        const FLAGS: u16 = 3;
        /// `NFT_FIB_RESULT_ADDRTYPE`, `NFTA_FIB_F_SADDR`, `NFTA_FIB_F_DADDR`.
        const ADDRESS_TYPE: u32 = 3;
        const SOURCE: u32 = 1;
        const DESTINATION: u32 = 2;
        let of = if side == Side::Source { SOURCE } else { DESTINATION };
        self.push("fib", |it| {
            it.attribute(TO, &FIRST.bytes())
                .attribute(RESULT, &ADDRESS_TYPE.to_be_bytes())
                .attribute(FLAGS, &of.to_be_bytes())
        });
        self.compare(comparison, &kind.to_ne_bytes());
    }
}

/// The number of an IP family.
pub(super) const fn family(is_ipv4: bool) -> u8 {
    if is_ipv4 { IPV4 } else { IPV6 }
}

/// A link's name as the kernel compares it, with zeros after it.
pub(super) fn name(interface: &str) -> [u8; NAME_ROOM] {
    let mut name = [0; NAME_ROOM];
    for (room, byte) in name.iter_mut().zip(interface.bytes().take(NAME_ROOM - 1)) {
        *room = byte;
    }
    name
}
