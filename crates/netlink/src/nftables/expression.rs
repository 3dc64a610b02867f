//! What rules are made of, as far as it is written here: each expression reads or fills registers,
//! and one that does not match ends the rule.

use crate::netfilter::message::Message;

const LIST_ELEMENT: u16 = 1;
const NAME: u16 = 1;
const DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
/// Has room for the name of an interface (`NFT_REG_1`).
const REGISTER: [u8; 4] = 1_u32.to_be_bytes();
/// `NFT_REG_VERDICT`.
const VERDICT_REGISTER: [u8; 4] = 0_u32.to_be_bytes();

/// Which of a frame's interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interface {
    /// By which it came.
    In,
    /// By which it goes.
    Out,
}

fn expression(message: Message, name: &str, fill: impl FnOnce(Message) -> Message) -> Message {
    message.nested(LIST_ELEMENT, |it| it.text(NAME, name).nested(DATA, fill))
}

/// Goes on for frames of this type. Of one with a tag that is the tag's, wherever the kernel keeps
/// it (`nft_payload_copy_vlan`).
pub(super) fn frame_type(message: Message, kind: u16) -> Message {
    const TO: u16 = 1;
    const BASE: u16 = 2;
    const OFFSET: u16 = 3;
    const LENGTH: u16 = 4;
    const LINK_HEADER: u32 = 0;
    const TYPE_OFFSET: u32 = 12;
    const TYPE_LENGTH: u32 = 2;
    let message = expression(message, "payload", |it| {
        it.attribute(TO, &REGISTER)
            .attribute(BASE, &LINK_HEADER.to_be_bytes())
            .attribute(OFFSET, &TYPE_OFFSET.to_be_bytes())
            .attribute(LENGTH, &TYPE_LENGTH.to_be_bytes())
    });
    const FROM: u16 = 1;
    const OPERATOR: u16 = 2;
    const VALUE: u16 = 3;
    const EQUAL: u32 = 0;
    expression(message, "cmp", |it| {
        it.attribute(FROM, &REGISTER)
            .attribute(OPERATOR, &EQUAL.to_be_bytes())
            .nested(VALUE, |data| data.attribute(DATA_VALUE, &kind.to_be_bytes()))
    })
}

/// Goes on for frames whose interface has its name in a set.
pub(super) fn interface_in(message: Message, interface: Interface, set: &str) -> Message {
    const TO: u16 = 1;
    const KEY: u16 = 2;
    let key: u32 = match interface {
        Interface::In => 6,
        Interface::Out => 7,
    };
    let message = expression(message, "meta", |it| {
        it.attribute(TO, &REGISTER).attribute(KEY, &key.to_be_bytes())
    });
    const SET: u16 = 1;
    const FROM: u16 = 2;
    expression(message, "lookup", |it| it.text(SET, set).attribute(FROM, &REGISTER))
}

/// Counts what came so far, and drops it.
pub(super) fn drop_counted(message: Message) -> Message {
    const TO: u16 = 1;
    const VALUE: u16 = 2;
    const CODE: u16 = 1;
    const DROP: u32 = 0;
    expression(expression(message, "counter", |it| it), "immediate", |it| {
        it.attribute(TO, &VERDICT_REGISTER).nested(VALUE, |data| {
            data.nested(DATA_VERDICT, |verdict| verdict.attribute(CODE, &DROP.to_be_bytes()))
        })
    })
}
