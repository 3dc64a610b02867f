//! Transactions: what the kernel does all of, or nothing.

use std::collections::BTreeSet;

use nix::errno::Errno;
use ruleset::nft::Table;

use super::Change;
use super::message::{self, SUBSYSTEM, describe, modules};
use crate::netfilter::message::{HEADERS, Message};

const BEGIN: [u8; 2] = [0, 0x10];
const END: [u8; 2] = [0, 0x11];
/// `NFNL_BATCH_GENID`.
const GENERATION: u16 = 1;

/// Changes of tables that are made at once, as the kernel is told of them.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where the last message begins.
    last: usize,
    /// Whether something goes.
    deletes: bool,
    /// The generation that it is for.
    generation: Option<u32>,
}

impl Batch {
    /// Changes of what was read of a [generation](super::Client::generation): refused with ERESTART where there was a change since.
    #[must_use]
    pub fn of_generation(generation: u32) -> Self {
        Self { generation: Some(generation), ..Self::default() }
    }

    /// Makes this change too, after those so far.
    pub fn push(&mut self, table: Table<'_>, change: &Change<'_>) {
        self.deletes |= change.deletes();
        change.messages(table).into_iter().for_each(|it| self.push_message(it));
    }

    pub(super) fn push_message(&mut self, message: Message) {
        self.last = self.bytes.len();
        self.bytes.extend(message.into_bytes());
    }

    /// Makes these changes too, after those so far.
    pub fn append(&mut self, after: &Self) {
        if !after.is_empty() {
            self.deletes |= after.deletes;
            self.last = self.bytes.len() + after.last;
            self.bytes.extend(&after.bytes);
        }
    }

    /// Whether something goes.
    pub(super) const fn deletes(&self) -> bool {
        self.deletes
    }

    /// Whether nothing changes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The messages, numbered from `first` on, of which the last change is acknowledged; also the number of
    /// that one.
    pub(super) fn framed(&self, first: u32) -> (Vec<u8>, u32) {
        let frame = |kind, sequence| Message::new(kind, 0, 0, SUBSYSTEM.into()).numbered(sequence);
        let mut bytes = Vec::with_capacity(self.bytes.len() + 3 * HEADERS);
        let begin = self.generation.into_iter().fold(frame(BEGIN, first), |begin, generation| {
            begin.attribute(GENERATION, &generation.to_be_bytes())
        });
        bytes.extend(begin.into_bytes());
        let start = bytes.len();
        bytes.extend(&self.bytes);
        let mut sequence = first;
        let mut place = start;
        while let Some(size) = message::size_at(&bytes, place) {
            sequence = sequence.wrapping_add(1);
            message::number_at(&mut bytes, place, sequence);
            place += size;
        }
        message::acknowledge_at(&mut bytes, start + self.last);
        bytes.extend(frame(END, sequence).into_bytes());
        (bytes, sequence)
    }

    /// In words, the change with this number, counted from 0, and why it may have been refused.
    pub(super) fn describe(&self, number: u32, errno: Errno) -> Option<String> {
        let mut place = 0;
        for _ in 0..number {
            place += message::size_at(&self.bytes, place)?;
        }
        let size = message::size_at(&self.bytes, place)?;
        let change = self.bytes.get(place..place + size)?;
        let told = describe(change)?;
        // That of an expression that the kernel neither has nor finds a module of.
        let modules = if errno == Errno::ENOENT { modules(change) } else { BTreeSet::new() };
        if modules.is_empty() {
            return Some(told);
        }
        let modules = modules.into_iter().collect::<Vec<_>>().join(", ");
        Some(format!("{told} (is one of these missing in the kernel: {modules}?)"))
    }
}

#[cfg(test)]
mod tests {
    use ruleset::iptables::Packets;
    use ruleset::nft::{Family, Match, Rule, Statement};

    use super::*;

    const NAT: Table<'_> = Table { family: Family::Ip, name: "nat" };

    #[test]
    fn a_batch_is_framed_and_its_last_change_acknowledged() {
        let (mut batch, mut after) = (Batch::default(), Batch::default());
        batch.push(NAT, &Change::DeleteRule("P", 258));
        after.push(NAT, &Change::DeleteChain("CNI-x"));
        let size = batch.bytes.len();
        batch.append(&after);
        batch.append(&Batch::default());
        let (bytes, last) = batch.framed(5);
        assert_eq!(last, 7);
        assert_eq!(bytes.len(), HEADERS + batch.bytes.len() + HEADERS);
        assert_eq!(bytes[19], SUBSYSTEM);
        let (rule, chain) = (HEADERS, HEADERS + size);
        assert_eq!(bytes[rule + 6], 1);
        assert_eq!(bytes[rule + 8..][..4], 6_u32.to_ne_bytes());
        assert_eq!(bytes[rule + size - 2..][..2], [1, 2]);
        assert_eq!(bytes[chain + 6], 1 | 4);
        assert_eq!(bytes[chain + 8..][..4], 7_u32.to_ne_bytes());
    }

    #[test]
    fn each_change_can_be_told() {
        let mut batch = Batch::default();
        let established = Match::Connection(Packets::Established);
        let rule = Rule::new([Match::Protocol(6), established], Statement::Reject).commented("why");
        let set = ruleset::nft::Set::new("s", [ruleset::nft::Key::Ipv4]);
        batch.push(NAT, &Change::Table(None));
        batch.push(NAT, &Change::Rule("c", &rule));
        batch.push(NAT, &Change::Set(&set));
        batch.push(NAT, &Change::DeleteChain("gone"));
        let told: Vec<_> = (0..5).map(|it| batch.describe(it, Errno::EPERM)).collect();
        let wanted = [
            "make table \"nat\"",
            "add a rule to chain \"c\" of table \"nat\" (why)",
            "make set \"s\" of table \"nat\"",
            "delete chain \"gone\" of table \"nat\"",
        ];
        assert_eq!(told[..4], wanted.map(|it| Some(it.to_owned())));
        assert_eq!(told[4], None);
        let hint = " (is one of these missing in the kernel: nft_ct, nft_reject_inet?)";
        let missing: Vec<_> = (0..4).map(|it| batch.describe(it, Errno::ENOENT)).collect();
        let hinted = told[1].clone().map(|it| it + hint);
        assert_eq!(missing, [told[0].clone(), hinted, told[2].clone(), told[3].clone()]);
    }
}
