//! Which address comes next: pure, no I/O.
//!
//! The order is the reference's round robin, so that both plugins can take turns on one directory:
//! from the address after the last one reserved, cyclically through the ranges of the set, without
//! each range's own gateway, until the start is reached again. Excluded addresses are cut out before
//! the walk begins, so that an excluded /65 costs no more than an excluded address.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::range::{AddressRange, RangeSet, to_address, to_number};

/// Neighbouring addresses of one range, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    range: usize,
    first: u128,
    last: u128,
}

/// The addresses of a range set that may be handed out.
#[derive(Debug)]
pub(crate) struct Pool<'a> {
    set: &'a RangeSet,
    spans: Vec<Span>,
}

impl<'a> Pool<'a> {
    /// The addresses of `set` without gateways and without those in `exclude`.
    #[must_use]
    pub(crate) fn new(set: &'a RangeSet, exclude: &[IpNetwork]) -> Self {
        let mut spans = Vec::new();
        for (index, range) in set.ranges().iter().enumerate() {
            let mut taboo: Vec<(u128, u128)> = exclude
                .iter()
                .filter(|network| network.is_ipv4() == set.is_ipv4())
                .map(|network| (to_number(network.network()), to_number(network.broadcast())))
                .collect();
            if range.contains(range.gateway()) {
                taboo.push((to_number(range.gateway()), to_number(range.gateway())));
            }
            taboo.sort_unstable();
            cut(range, index, &taboo, &mut spans);
        }
        Self { set, spans }
    }

    /// How many addresses there are, taken or not; saturating.
    #[must_use]
    pub(crate) fn size(&self) -> u128 {
        let sizes = self.spans.iter().map(|span| (span.last - span.first).saturating_add(1));
        sizes.fold(0, u128::saturating_add)
    }

    /// Whether `address` may be handed out.
    #[must_use]
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let number = to_number(address);
        address.is_ipv4() == self.set.is_ipv4()
            && self.spans.iter().any(|span| span.first <= number && number <= span.last)
    }

    /// All addresses once, beginning after `last_reserved` if that is in the set, else with the
    /// first.
    #[must_use]
    pub(crate) fn walk(&self, last_reserved: Option<IpAddr>) -> Walk {
        let ipv4 = self.set.is_ipv4();
        let place = last_reserved.and_then(|address| {
            let range = self.set.ranges().iter().position(|range| range.contains(address))?;
            Some((range, to_number(address)))
        });
        let Some((range, last)) = place else {
            return Walk { ipv4, spans: self.spans.clone(), next: None };
        };
        // Split at the last reserved address: what is after it comes first, it itself comes last.
        let mut before = Vec::new();
        let mut spans = Vec::with_capacity(self.spans.len() + 1);
        for span in &self.spans {
            if (span.range, span.last) <= (range, last) {
                before.push(*span);
            } else if (span.range, span.first) > (range, last) {
                spans.push(*span);
            } else {
                before.push(Span { last, ..*span });
                spans.push(Span { first: last.saturating_add(1), ..*span });
            }
        }
        spans.append(&mut before);
        Walk { ipv4, spans, next: None }
    }
}

/// Appends to `spans` what is left of `range` without the sorted intervals `taboo`.
fn cut(range: &AddressRange, index: usize, taboo: &[(u128, u128)], spans: &mut Vec<Span>) {
    let last = to_number(range.last());
    let mut next = to_number(range.first());
    for (from, to) in taboo {
        if *to < next || *from > last {
            continue;
        }
        if next < *from {
            spans.push(Span { range: index, first: next, last: from.saturating_sub(1) });
        }
        match to.checked_add(1) {
            Some(after) => next = after,
            None => return,
        }
    }
    if next <= last {
        spans.push(Span { range: index, first: next, last });
    }
}

/// The addresses of a pool in the order in which they are to be tried.
#[derive(Debug)]
pub(crate) struct Walk {
    ipv4: bool,
    spans: Vec<Span>,
    /// Position: index of the span, and the next number of it.
    next: Option<(usize, u128)>,
}

impl Iterator for Walk {
    type Item = IpAddr;

    fn next(&mut self) -> Option<IpAddr> {
        let (index, number) = match self.next {
            Some(place) => place,
            None => (0, self.spans.first()?.first),
        };
        let span = self.spans.get(index)?;
        self.next = Some(if number < span.last {
            (index, number + 1)
        } else {
            (index + 1, self.spans.get(index + 1).map_or(0, |span| span.first))
        });
        Some(to_address(number, self.ipv4))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn range(subnet: &str, first: &str, last: &str, gateway: &str) -> AddressRange {
        let subnet = cni::parse_cidr(subnet).unwrap();
        AddressRange::new(subnet, Some(ip(first)), Some(ip(last)), Some(ip(gateway))).unwrap()
    }

    fn walked(pool: &Pool<'_>, last: Option<&str>) -> Vec<String> {
        pool.walk(last.map(ip)).map(|address| address.to_string()).collect()
    }

    #[test]
    fn the_walk_begins_after_the_last_and_skips_gateways() {
        let set = RangeSet::new(vec![
            range("10.1.0.0/24", "10.1.0.1", "10.1.0.3", "10.1.0.1"),
            range("10.1.1.0/24", "10.1.1.1", "10.1.1.3", "10.1.1.2"),
        ])
        .unwrap();
        let pool = Pool::new(&set, &[]);
        assert_eq!(pool.size(), 4);
        assert_eq!(walked(&pool, None), ["10.1.0.2", "10.1.0.3", "10.1.1.1", "10.1.1.3"]);
        assert_eq!(
            walked(&pool, Some("10.1.0.3")),
            ["10.1.1.1", "10.1.1.3", "10.1.0.2", "10.1.0.3"]
        );
        assert_eq!(walked(&pool, Some("10.9.9.9")), walked(&pool, None));
        // A gateway as the last reserved address: another configuration reserved it.
        assert_eq!(
            walked(&pool, Some("10.1.1.2")),
            ["10.1.1.3", "10.1.0.2", "10.1.0.3", "10.1.1.1"]
        );
    }

    #[test]
    fn a_gateway_of_another_range_is_handed_out() {
        let set = RangeSet::new(vec![
            range("10.1.0.0/24", "10.1.0.1", "10.1.0.2", "10.1.0.254"),
            range("10.1.0.0/24", "10.1.0.254", "10.1.0.254", "10.1.0.1"),
        ])
        .unwrap();
        assert_eq!(walked(&Pool::new(&set, &[]), None), ["10.1.0.1", "10.1.0.2", "10.1.0.254"]);
    }

    #[test]
    fn huge_pools_cost_nothing() {
        let subnet = cni::parse_cidr("::/0").unwrap();
        let whole = AddressRange::new(subnet, None, None, None).unwrap();
        let set = RangeSet::new(vec![whole]).unwrap();
        let upper = cni::parse_cidr("8000::/1").unwrap();
        let pool = Pool::new(&set, &[upper]);
        assert_eq!(pool.size(), (1 << 127) - 2);
        let last = "7fff:ffff:ffff:ffff:ffff:ffff:ffff:fffe";
        let next: Vec<IpAddr> = pool.walk(Some(ip(last))).take(2).collect();
        assert_eq!(next, [ip("7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), ip("::2")]);
        let everything = cni::parse_cidr("::/0").unwrap();
        assert_eq!(Pool::new(&set, &[everything]).walk(None).count(), 0);
    }

    /// The reference's walk, step by step.
    fn naive(set: &RangeSet, exclude: &[IpNetwork], last: Option<IpAddr>) -> Vec<IpAddr> {
        let mut ring: Vec<(IpAddr, IpAddr)> = Vec::new();
        for range in set.ranges() {
            for number in to_number(range.first())..=to_number(range.last()) {
                ring.push((to_address(number, range.first().is_ipv4()), range.gateway()));
            }
        }
        let start = last
            .and_then(|last| ring.iter().position(|(address, _)| *address == last))
            .map_or(0, |position| position + 1);
        let length = ring.len();
        ring.rotate_left(start % length);
        ring.retain(|(address, gateway)| {
            address != gateway && !exclude.iter().any(|network| network.contains(*address))
        });
        ring.into_iter().map(|(address, _)| address).collect()
    }

    fn any_set() -> impl Strategy<Value = RangeSet> {
        let piece = (0_u32..3, 0_u32..30, 0_u32..30, 0_u32..32);
        proptest::collection::vec(piece, 1..4).prop_filter_map("overlap", |pieces| {
            let ranges = pieces.into_iter().map(|(block, first, length, gateway)| {
                let base = 0x0a01_0000 + block * 64;
                let at = |offset: u32| IpAddr::from(std::net::Ipv4Addr::from_bits(base + offset));
                let subnet = IpNetwork::new(at(0), 26).unwrap();
                AddressRange::new(
                    subnet,
                    Some(at(first)),
                    Some(at(first + length)),
                    Some(at(gateway)),
                )
            });
            RangeSet::new(ranges.collect::<Result<_, _>>().ok()?).ok()
        })
    }

    proptest! {
        #[test]
        fn the_walk_is_the_naive_one(
            set in any_set(),
            exclude in proptest::collection::vec((0_u32..192, 24_u8..=32), 0..4),
            last in proptest::option::of(0_u32..256),
            taken in proptest::collection::btree_set(0_u32..256, 0..200),
        ) {
            let at = |offset: u32| IpAddr::from(std::net::Ipv4Addr::from_bits(0x0a01_0000 + offset));
            let exclude: Vec<IpNetwork> =
                exclude.into_iter().map(|(a, prefix)| IpNetwork::new(at(a), prefix).unwrap()).collect();
            let last = last.map(at);
            let pool = Pool::new(&set, &exclude);
            let walk: Vec<IpAddr> = pool.walk(last).collect();
            let wanted = naive(&set, &exclude, last);
            prop_assert_eq!(&walk, &wanted);
            prop_assert_eq!(pool.size(), wanted.len() as u128);
            for offset in 0..256 {
                prop_assert_eq!(pool.contains(at(offset)), wanted.contains(&at(offset)));
            }
            let taken: BTreeSet<IpAddr> = taken.into_iter().map(at).collect();
            let free = pool.walk(last).find(|address| !taken.contains(address));
            prop_assert_eq!(free, wanted.into_iter().find(|address| !taken.contains(address)));
        }
    }
}
