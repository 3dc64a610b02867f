use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn net(text: &str) -> IpNetwork {
    cni::parse_cidr(text).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn range(subnet: &str, first: Option<&str>, last: Option<&str>) -> Result<AddressRange, String> {
    AddressRange::new(net(subnet), first.map(ip), last.map(ip), None).map_err(|e| e.to_string())
}

#[test]
fn defaults_leave_out_network_and_broadcast() {
    let four = range("10.1.0.0/24", None, None).unwrap();
    assert_eq!(four.to_string(), "10.1.0.1-10.1.0.254");
    assert_eq!(four.gateway(), ip("10.1.0.1"));
    let six = range("fd00::/64", None, None).unwrap();
    assert_eq!(six.to_string(), "fd00::1-fd00::ffff:ffff:ffff:ffff");
    let whole = range("::/0", None, None).unwrap();
    assert_eq!(whole.last(), ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
}

#[test]
fn problems_are_told_in_the_references_words() {
    for (subnet, first, last, text) in [
        ("10.1.0.0/31", None, None, "Network 10.1.0.0/31 too small to allocate from"),
        ("fd00::/127", None, None, "Network fd00::/127 too small to allocate from"),
        (
            "10.1.0.7/24",
            None,
            None,
            "Network has host bits set. For a subnet mask of length 24 the network address is 10.1.0.0",
        ),
        ("10.1.0.0/24", Some("10.2.0.1"), None, "RangeStart 10.2.0.1 not in network 10.1.0.0/24"),
        ("10.1.0.0/24", Some("fd00::1"), None, "RangeStart fd00::1 not in network 10.1.0.0/24"),
        (
            "10.1.0.0/24",
            Some("10.1.0.9"),
            Some("10.1.0.5"),
            "RangeStart 10.1.0.9 not in network 10.1.0.0/24 (it is after",
        ),
        ("10.1.0.0/24", None, Some("10.2.0.5"), "RangeEnd 10.2.0.5 not in network 10.1.0.0/24"),
        (
            "10.1.0.0/24",
            None,
            Some("10.1.0.0"),
            "RangeEnd 10.1.0.0 not in network 10.1.0.0/24 (it is before",
        ),
        (
            "10.1.0.0/24",
            Some("10.1.0.255"),
            None,
            "RangeStart 10.1.0.255 not in network 10.1.0.0/24 (it is after",
        ),
    ] {
        let told = range(subnet, first, last).unwrap_err();
        assert!(told.starts_with(text), "{told}");
    }
}

#[test]
fn sets_are_of_one_family_and_disjoint() {
    let part = |first, last| range("10.1.0.0/24", Some(first), Some(last)).unwrap();
    assert_eq!(RangeSet::new(vec![]).unwrap_err(), RangeProblem::Empty);
    let six = range("fd00::/64", None, None).unwrap();
    let mixed = RangeSet::new(vec![part("10.1.0.2", "10.1.0.5"), six]);
    assert_eq!(mixed.unwrap_err(), RangeProblem::MixedFamilies);
    let overlap = RangeSet::new(vec![part("10.1.0.2", "10.1.0.5"), part("10.1.0.5", "10.1.0.9")]);
    assert_eq!(
        overlap.unwrap_err().to_string(),
        "subnets 10.1.0.2-10.1.0.5 and 10.1.0.5-10.1.0.9 overlap"
    );
    let set = RangeSet::new(vec![part("10.1.0.2", "10.1.0.5"), part("10.1.0.7", "10.1.0.9")]);
    assert_eq!(set.unwrap().to_string(), "10.1.0.2-10.1.0.5,10.1.0.7-10.1.0.9");
}

/// A small subnet, and ends that are inside, outside or absent.
fn small_range() -> impl Strategy<Value = (IpNetwork, Option<IpAddr>, Option<IpAddr>)> {
    let end = || proptest::option::of(0_u32..80);
    (26_u8..=32, 0_u32..3, end(), end(), any::<bool>()).prop_map(|(prefix, at, first, last, v6)| {
        let base = 0x0a01_0000_u32;
        let address = |offset: u32| -> IpAddr {
            if v6 {
                Ipv6Addr::from_bits((0xfd00_u128 << 112) | u128::from(base + offset)).into()
            } else {
                Ipv4Addr::from_bits(base + offset).into()
            }
        };
        let prefix = if v6 { prefix + 96 } else { prefix };
        (IpNetwork::new(address(at), prefix).unwrap(), first.map(address), last.map(address))
    })
}

fn members(range: &AddressRange) -> BTreeSet<IpAddr> {
    let all = to_number(range.first())..=to_number(range.last());
    all.map(|number| to_address(number, range.first().is_ipv4())).collect()
}

proptest! {
    #[test]
    fn a_range_is_what_brute_force_says((subnet, first, last) in small_range()) {
        let host_addresses: Vec<IpAddr> = subnet.iter().collect();
        let usable = host_addresses.len() >= 4 && subnet.ip() == subnet.network();
        let end = if subnet.is_ipv4() { host_addresses.len() - 1 } else { host_addresses.len() };
        let low = first.unwrap_or_else(|| host_addresses[1.min(host_addresses.len() - 1)]);
        let high = last.unwrap_or_else(|| host_addresses[end.saturating_sub(1)]);
        let inside = host_addresses.contains(&low) && host_addresses.contains(&high) && low <= high;
        match AddressRange::new(subnet, first, last, None) {
            Err(_) => prop_assert!(!usable || !inside),
            Ok(range) => {
                prop_assert!(usable && inside);
                let wanted: BTreeSet<IpAddr> =
                    host_addresses.iter().copied().filter(|a| low <= *a && *a <= high).collect();
                prop_assert_eq!(members(&range), wanted);
                for address in host_addresses {
                    prop_assert_eq!(range.contains(address), low <= address && address <= high);
                }
            }
        }
    }

    #[test]
    fn overlap_is_a_shared_member(one in small_range(), two in small_range()) {
        let made = |(subnet, first, last)| AddressRange::new(subnet, first, last, None);
        if let (Ok(one), Ok(two)) = (made(one), made(two)) {
            let shared = !members(&one).is_disjoint(&members(&two));
            prop_assert_eq!(one.overlaps(&two), shared);
            prop_assert_eq!(two.overlaps(&one), shared);
        }
    }
}
