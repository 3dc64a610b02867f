//! Fields of packets that have what keys and values are, as the program nft keeps them with a set (`typeof`):
//! pieces within pieces, of which nobody but nft makes sense (`nftnl_udata`; nftables: `expr_ops.build_udata`).

use ruleset::nft::Key;

use super::entry;

/// That a map leads to verdicts.
pub(super) const VERDICT: [u8; 8] = [0, 4, 1, 0, 0, 0, 1, 0];

/// Of a kind of expressions.
const KIND: u8 = 0;
/// What that kind needs to know.
const OF_KIND: u8 = 1;
/// Kinds of expressions (`enum expr_types`).
const PAYLOAD: u32 = 7;
const META: u32 = 9;
const CONCATENATION: u32 = 13;
const RANDOM: u32 = 23;

/// Fields with these parts.
pub(super) fn of(keys: &[Key]) -> Vec<u8> {
    match keys {
        [only] => of_key(*only),
        several => {
            let parts = (0_u8..).zip(several).flat_map(|(place, key)| entry(place, &of_key(*key)));
            expression(CONCATENATION, &parts.collect::<Vec<_>>())
        }
    }
}

fn of_key(key: Key) -> Vec<u8> {
    match key {
        // The header (`enum proto_desc_id`), and the field's place among those of it.
        Key::Ipv4 => expression(PAYLOAD, &numbers([12, 12])),
        Key::Ipv6 => expression(PAYLOAD, &numbers([13, 9])),
        Key::Port => expression(PAYLOAD, &numbers([11, 2])),
        // `enum nft_meta_keys`.
        Key::Priority => expression(META, &numbers([2])),
        Key::Interface => expression(META, &numbers([6])),
        Key::Protocol => expression(META, &numbers([16])),
        // Of chance, below 1, from 0 on.
        Key::Number => expression(RANDOM, &numbers([1, 1, 0])),
    }
}

fn expression(kind: u32, data: &[u8]) -> Vec<u8> {
    [entry(KIND, &kind.to_ne_bytes()), entry(OF_KIND, data)].concat()
}

fn numbers<const COUNT: usize>(numbers: [u32; COUNT]) -> Vec<u8> {
    (0_u8..).zip(numbers).flat_map(|(place, number)| entry(place, &number.to_ne_bytes())).collect()
}
