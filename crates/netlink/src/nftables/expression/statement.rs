//! What rules do.

use ruleset::iptables::PortRange;
use ruleset::nft::{Family, Field, Statement, Verdict};

use super::meta::Meta;
use super::{DATA_VALUE, Expressions, FIRST, Register, lookup};
use crate::netfilter::message::Message;

/// `NFT_REG_VERDICT`.
const VERDICT: Register = Register(0);
const DATA_VERDICT: u16 = 2;
const CODE: u16 = 1;
const CHAIN: u16 = 2;
const ACCEPT: i32 = 1;
const DROP: i32 = 0;
const JUMP: i32 = -3;
const GOTO: i32 = -4;
const RETURN: i32 = -5;

impl Expressions {
    pub(super) fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::Verdict(verdict) => {
                self.immediate(VERDICT, |value| verdict_data(value, verdict));
            }
            Statement::Map(fields, map) => {
                const TO: u16 = 3;
                self.load_fields(fields);
                self.push("lookup", |it| lookup(it, map).attribute(TO, &VERDICT.bytes()));
            }
            Statement::Forward { link, .. } => {
                const TO: u16 = 1;
                self.immediate(FIRST, |it| it.attribute(DATA_VALUE, &link.to_ne_bytes()));
                self.push("fwd", |it| it.attribute(TO, &FIRST.bytes()));
            }
            Statement::Redirect { is_ipv4, fields, map } => self.redirect(*is_ipv4, fields, map),
            Statement::SetPriority { fields, map } => {
                const TO: u16 = 3;
                self.load_fields(fields);
                self.push("lookup", |it| lookup(it, map).attribute(TO, &FIRST.bytes()));
                self.set_meta(Meta::Priority);
            }
            Statement::Remember { fields, data, map, seconds } => {
                self.dynset(fields, data, map, Some(*seconds));
            }
            Statement::Forget { fields, data, map } => self.dynset(fields, data, map, None),
            Statement::Reject => self.reject(),
            Statement::Log { group, prefix } => {
                const GROUP: u16 = 1;
                const PREFIX: u16 = 2;
                self.push("log", |it| {
                    it.attribute(GROUP, &group.to_be_bytes()).text(PREFIX, prefix)
                });
            }
            Statement::ClearMark(bits) => self.change_mark(!bits, 0),
            Statement::SetMark(bits) => self.change_mark(!bits, *bits),
            Statement::Masquerade { random_fully, to_ports } => {
                self.masquerade(*random_fully, *to_ports);
            }
        }
    }

    fn immediate(&mut self, register: Register, value: impl FnOnce(Message) -> Message) {
        const TO: u16 = 1;
        const VALUE: u16 = 2;
        self.push("immediate", |it| it.attribute(TO, &register.bytes()).nested(VALUE, value));
    }

    fn redirect(&mut self, is_ipv4: bool, fields: &[Field], map: &str) {
        const MAP_TO: u16 = 3;
        const KIND: u16 = 1;
        const FAMILY: u16 = 2;
        const FIRST_ADDRESS: u16 = 3;
        const FIRST_PORT: u16 = 5;
        const FLAGS: u16 = 7;
        /// `NFT_NAT_DNAT`.
        const DESTINATION: u32 = 1;
        /// `NF_NAT_RANGE_MAP_IPS`, `NF_NAT_RANGE_PROTO_SPECIFIED`.
        const TO_ADDRESS_AND_PORT: u32 = 3;
        // Of the other family the kernel leaves a packet as it is (`nft_nat_inet_eval`).
        self.load_fields(fields);
        self.push("lookup", |it| lookup(it, map).attribute(MAP_TO, &FIRST.bytes()));
        let port = FIRST.behind(if is_ipv4 { 4 } else { 16 });
        self.push("nat", |it| {
            it.attribute(KIND, &DESTINATION.to_be_bytes())
                .attribute(FAMILY, &u32::from(super::meta::family(is_ipv4)).to_be_bytes())
                .attribute(FIRST_ADDRESS, &FIRST.bytes())
                .attribute(FIRST_PORT, &port.bytes())
                .attribute(FLAGS, &TO_ADDRESS_AND_PORT.to_be_bytes())
        });
    }

    /// `seconds`: for so long it is there from now on; `None`: no more.
    fn dynset(&mut self, fields: &[Field], data: &[Field], map: &str, seconds: Option<u32>) {
        const SET: u16 = 1;
        const OPERATION: u16 = 3;
        const KEY: u16 = 4;
        const DATA: u16 = 5;
        const TIMEOUT: u16 = 6;
        /// `NFT_DYNSET_OP_UPDATE`, `NFT_DYNSET_OP_DELETE`.
        const UPDATE: u32 = 1;
        const DELETE: u32 = 2;
        let behind = self.load_fields_from(FIRST, fields);
        self.load_fields_from(behind, data);
        let operation = if seconds.is_some() { UPDATE } else { DELETE };
        self.push("dynset", |it| {
            let it = it
                .text(SET, map)
                .attribute(OPERATION, &operation.to_be_bytes())
                .attribute(KEY, &FIRST.bytes())
                .attribute(DATA, &behind.bytes());
            // The kernel's unit is a millisecond.
            let timeout = seconds.map(|it| u64::from(it) * 1000);
            timeout
                .into_iter()
                .fold(it, |it, timeout| it.attribute(TIMEOUT, &timeout.to_be_bytes()))
        });
    }

    fn reject(&mut self) {
        const KIND: u16 = 1;
        const CODE: u16 = 2;
        const UNREACHABLE: u32 = 0;
        /// Of either family (`NFT_REJECT_ICMPX_UNREACH`), and its code for a port.
        const OF_BOTH: (u32, u8) = (2, 1);
        let (kind, code) = match self.family {
            Family::Ip => (UNREACHABLE, 3),
            Family::Ip6 => (UNREACHABLE, 4),
            Family::Inet | Family::Bridge | Family::Netdev => OF_BOTH,
        };
        self.push("reject", |it| it.attribute(KIND, &kind.to_be_bytes()).attribute(CODE, &[code]));
    }

    fn masquerade(&mut self, random_fully: bool, to_ports: Option<PortRange>) {
        const FLAGS: u16 = 1;
        const FIRST_PORT: u16 = 2;
        const LAST_PORT: u16 = 3;
        /// `NF_NAT_RANGE_PROTO_SPECIFIED`, `NF_NAT_RANGE_PROTO_RANDOM_FULLY`.
        const TO_PORTS: u32 = 1 << 1;
        const RANDOM_FULLY: u32 = 1 << 4;
        let last = FIRST.behind(16);
        if let Some(ports) = to_ports {
            for (register, port) in [(FIRST, ports.first), (last, ports.last)] {
                self.immediate(register, |it| it.attribute(DATA_VALUE, &port.to_be_bytes()));
            }
        }
        self.push("masq", |it| {
            let flags = if random_fully { RANDOM_FULLY } else { 0 }
                | if to_ports.is_some() { TO_PORTS } else { 0 };
            let it = if flags > 0 { it.attribute(FLAGS, &flags.to_be_bytes()) } else { it };
            match to_ports {
                None => it,
                Some(_) => {
                    it.attribute(FIRST_PORT, &FIRST.bytes()).attribute(LAST_PORT, &last.bytes())
                }
            }
        });
    }
}

/// A verdict as data of an expression, or of a map's element.
pub(in crate::nftables) fn verdict_data(data: Message, verdict: &Verdict) -> Message {
    let code = match verdict {
        Verdict::Accept => ACCEPT,
        Verdict::Jump(_) => JUMP,
        Verdict::Goto(_) => GOTO,
        Verdict::Return => RETURN,
        Verdict::Drop => DROP,
    };
    data.nested(DATA_VERDICT, |data| {
        let data = data.attribute(CODE, &code.to_be_bytes());
        verdict.chain().into_iter().fold(data, |data, chain| data.text(CHAIN, chain))
    })
}

/// The verdict that such data holds; `None`: it is none that is known here.
pub(in crate::nftables) fn read_verdict(data: &[u8]) -> Option<Verdict> {
    use crate::attributes::{find, network_number, text};
    let verdict = find(data, DATA_VERDICT)?;
    let chain = || find(verdict, CHAIN).map(text);
    Some(match find(verdict, CODE).and_then(network_number)?.cast_signed() {
        ACCEPT => Verdict::Accept,
        DROP => Verdict::Drop,
        JUMP => Verdict::Jump(chain()?),
        GOTO => Verdict::Goto(chain()?),
        RETURN => Verdict::Return,
        _ => return None,
    })
}
