//! Blocks of addresses.

use std::collections::BTreeSet;
use std::iter::{from_fn, once};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use k8s_openapi::api::networking::v1::IPBlock;
use ruleset::networks::around;

use super::error::{Defect, Problem};

/// A peer that is a block of addresses, whoever has them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IpBlock {
    /// The block, written with its network's address.
    pub cidr: IpNetwork,
    /// What is left out of this block, and of no other: strict subsets of it.
    pub except: BTreeSet<IpNetwork>,
}

impl IpBlock {
    /// Whether `address` is in the block and in no exception. Those of the other family are not.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.cidr.contains(address) && !self.except.iter().any(|block| block.contains(address))
    }

    /// The networks that together are the block without its exceptions, in order; each as large as can be.
    pub fn networks(&self) -> impl Iterator<Item = IpNetwork> {
        let is_ipv4 = self.cidr.is_ipv4();
        let whole = Range::from(self.cidr);
        let mut from = Some(whole.first);
        // An exception within another one begins behind its beginning, and ends no later.
        let gaps = self.except.iter().map(|it| Some(Range::from(*it))).chain(once(None));
        gaps.filter_map(move |except| {
            let first = from?;
            let Some(except) = except else { return Some(Range { first, last: whole.last }) };
            let next = except.last.checked_add(1).filter(|it| *it <= whole.last);
            from = next.map(|it| it.max(first));
            let last = except.first.checked_sub(1)?;
            (first <= last).then_some(Range { first, last })
        })
        .flat_map(move |gap| gap.networks(is_ipv4))
    }

    pub(super) fn compile(block: &IPBlock) -> Result<Self, Defect> {
        let cidr = parse_cidr(&block.cidr)
            .ok_or_else(|| Defect::new("cidr", Problem::Cidr(block.cidr.clone())))?;
        let mut except = BTreeSet::new();
        for (index, text) in block.except.iter().flatten().enumerate() {
            let at = |problem| Defect::new(format!("except[{index}]"), problem);
            let part = parse_cidr(text).ok_or_else(|| at(Problem::Cidr(text.clone())))?;
            if part.prefix() <= cidr.prefix() || !cidr.contains(part.ip()) {
                let (except, cidr) = (text.clone(), block.cidr.clone());
                return Err(at(Problem::ExceptOutside { except, cidr }));
            }
            except.insert(part);
        }
        Ok(Self { cidr, except })
    }
}

/// Addresses of one family, as numbers: from the first to the last, both included.
#[derive(Debug, Clone, Copy)]
struct Range {
    first: u128,
    last: u128,
}

impl From<IpNetwork> for Range {
    fn from(network: IpNetwork) -> Self {
        match network {
            IpNetwork::V4(it) => {
                Self { first: it.network().to_bits().into(), last: it.broadcast().to_bits().into() }
            }
            IpNetwork::V6(it) => {
                Self { first: it.network().to_bits(), last: it.broadcast().to_bits() }
            }
        }
    }
}

impl Range {
    fn networks(self, is_ipv4: bool) -> impl Iterator<Item = IpNetwork> {
        let longest: u8 = if is_ipv4 { 32 } else { 128 };
        let mut from = Some(self.first);
        from_fn(move || {
            let first = from.filter(|it| *it <= self.last)?;
            // As many bits as are zero in its first address, and as fit ahead of the range's end.
            let ends_within = |bits: &u32| {
                let rest = 1_u128.checked_shl(*bits).map_or(u128::MAX, |it| it - 1);
                first & rest == 0 && rest <= self.last - first
            };
            let bits = (0..=u32::from(longest)).take_while(ends_within).last()?;
            from = 1_u128.checked_shl(bits).and_then(|size| first.checked_add(size));
            let address: IpAddr = if is_ipv4 {
                Ipv4Addr::from_bits(u32::try_from(first).ok()?).into()
            } else {
                Ipv6Addr::from_bits(first).into()
            };
            IpNetwork::new(address, longest.checked_sub(u8::try_from(bits).ok()?)?).ok()
        })
    }
}

/// `address/prefix length` without host bits. An IPv4 block wrapped in IPv6 (`::ffff:10.0.0.0/104`)
/// is one of IPv4, as it is to Go.
pub(crate) fn parse_cidr(text: &str) -> Option<IpNetwork> {
    let (address, prefix) = text.split_once('/')?;
    if !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (address, prefix) = (address.parse::<IpAddr>().ok()?, prefix.parse::<u8>().ok()?);
    match (address.to_canonical(), prefix.checked_sub(96)) {
        (unwrapped @ IpAddr::V4(_), Some(prefix)) if address.is_ipv6() => around(unwrapped, prefix),
        _ => around(address, prefix),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn left(cidr: &str, except: &[&str]) -> Vec<String> {
        let parse = |text: &str| text.parse().unwrap();
        let except = except.iter().map(|it| parse(it)).collect();
        IpBlock { cidr: parse(cidr), except }.networks().map(|it| it.to_string()).collect()
    }

    #[test]
    fn a_block_without_exceptions_is_itself() {
        for cidr in ["0.0.0.0/0", "::/0", "10.0.0.0/8", "255.255.255.255/32", "fd00::1/128"] {
            assert_eq!(left(cidr, &[]), [cidr]);
        }
    }

    #[test]
    fn what_is_left_is_the_other_halves() {
        assert_eq!(
            left("10.0.0.0/8", &["10.1.0.0/16"]),
            [
                "10.0.0.0/16",
                "10.2.0.0/15",
                "10.4.0.0/14",
                "10.8.0.0/13",
                "10.16.0.0/12",
                "10.32.0.0/11",
                "10.64.0.0/10",
                "10.128.0.0/9",
            ]
        );
        assert_eq!(left("::/0", &["8000::/1"]), ["::/1"]);
        assert_eq!(left("::/0", &["::/1"]), ["8000::/1"]);
        assert_eq!(left("10.0.0.0/30", &["10.0.0.0/31", "10.0.0.2/31"]), [""; 0]);
        assert_eq!(left("0.0.0.0/0", &["0.0.0.0/1", "10.0.0.0/8"]), ["128.0.0.0/1"]);
    }

    #[test]
    fn many_exceptions_leave_what_is_between_them() {
        let except =
            (0..1 << 12).map(|it| IpNetwork::new(Ipv4Addr::from_bits(it << 20).into(), 32));
        let except = except.collect::<Result<_, _>>().unwrap();
        let block = IpBlock { cidr: "0.0.0.0/0".parse().unwrap(), except };
        assert_eq!(block.networks().count(), 20 << 12);
    }

    fn small_network() -> impl Strategy<Value = IpNetwork> {
        (any::<u8>(), 0..=8_u8).prop_map(|(last, bits)| {
            let network = IpNetwork::new([10, 0, 0, last].into(), 24 + bits).unwrap();
            IpNetwork::new(network.network(), 24 + bits).unwrap()
        })
    }

    proptest! {
        #[test]
        fn an_address_is_in_what_is_left_once_or_not_at_all(
            except in proptest::collection::btree_set(small_network(), 0..5),
        ) {
            let cidr = "10.0.0.0/24".parse().unwrap();
            let block = IpBlock { cidr, except };
            let left: Vec<_> = block.networks().collect();
            for last in 0..=255_u8 {
                let address = [10, 0, 0, last].into();
                let times = left.iter().filter(|network| network.contains(address)).count();
                prop_assert_eq!(times, usize::from(block.contains(address)), "{}", last);
            }
            // No two of them are the halves of one that is left.
            for pair in left.windows(2) {
                let whole = IpNetwork::new(pair[0].ip(), pair[0].prefix() - 1).unwrap();
                let are_halves = pair[0].prefix() == pair[1].prefix() && whole.contains(pair[1].ip());
                prop_assert!(!are_halves, "{:?}", pair);
            }
        }
    }

    #[test]
    fn cidrs_lose_their_host_bits() {
        for (text, canonical) in [
            ("10.0.0.1/8", "10.0.0.0/8"),
            ("10.0.0.1/32", "10.0.0.1/32"),
            ("1.2.3.4/0", "0.0.0.0/0"),
            ("fd00::1/64", "fd00::/64"),
            ("fd00::1/0", "::/0"),
            ("::ffff:10.0.0.1/104", "10.0.0.0/8"),
            ("::ffff:10.0.0.1/90", "::ffc0:0:0/90"),
        ] {
            let block = parse_cidr(text).unwrap();
            assert_eq!(block, canonical.parse().unwrap(), "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_cidrs() {
        for text in [
            "",
            "/",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/255.0.0.0",
            "10/8",
            "::/129",
            "x/8",
            "10.0.0.0/8/8",
        ] {
            assert_eq!(parse_cidr(text), None, "{text}");
        }
    }
}
