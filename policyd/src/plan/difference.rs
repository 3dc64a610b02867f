//! What is left of a block of addresses.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::model::IpBlock;

/// The networks that together are the block without its exceptions; each as large as can be.
pub(crate) fn difference(block: &IpBlock) -> Vec<IpNetwork> {
    let mut left = vec![block.cidr];
    for except in &block.except {
        left = left.into_iter().flat_map(|network| without(network, *except)).collect();
    }
    left
}

/// `network` without `except`: the other half at each step on the way down to it.
fn without(network: IpNetwork, except: IpNetwork) -> Vec<IpNetwork> {
    if except.prefix() <= network.prefix() {
        return if covers(except, network) { Vec::new() } else { vec![network] };
    }
    if !covers(network, except) {
        return vec![network];
    }
    let mut left = Vec::new();
    for prefix in network.prefix() + 1..=except.prefix() {
        left.extend(sibling(except.ip(), prefix));
    }
    left
}

fn covers(network: IpNetwork, other: IpNetwork) -> bool {
    network.prefix() <= other.prefix() && network.contains(other.ip())
}

/// The network of this prefix length that differs from the one with `address` in its last bit only.
fn sibling(address: IpAddr, prefix: u8) -> Option<IpNetwork> {
    let (flipped, prefix_mask): (IpAddr, _) = match address {
        IpAddr::V4(it) => {
            let bit = 1_u32.checked_shl(32_u32.checked_sub(u32::from(prefix))?)?;
            ((it.to_bits() ^ bit).to_be_bytes().into(), prefix)
        }
        IpAddr::V6(it) => {
            let bit = 1_u128.checked_shl(128_u32.checked_sub(u32::from(prefix))?)?;
            ((it.to_bits() ^ bit).to_be_bytes().into(), prefix)
        }
    };
    let network = IpNetwork::new(flipped, prefix_mask).ok()?;
    IpNetwork::new(network.network(), prefix).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(cidr: &str, except: &[&str]) -> IpBlock {
        let parse = |text: &str| text.parse().unwrap();
        IpBlock { cidr: parse(cidr), except: except.iter().map(|it| parse(it)).collect() }
    }

    fn left(cidr: &str, except: &[&str]) -> Vec<String> {
        difference(&block(cidr, except)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_block_without_exceptions_is_itself() {
        assert_eq!(left("0.0.0.0/0", &[]), ["0.0.0.0/0"]);
    }

    #[test]
    fn what_is_left_is_the_other_halves() {
        assert_eq!(
            left("10.0.0.0/8", &["10.1.0.0/16"]),
            [
                "10.128.0.0/9",
                "10.64.0.0/10",
                "10.32.0.0/11",
                "10.16.0.0/12",
                "10.8.0.0/13",
                "10.4.0.0/14",
                "10.2.0.0/15",
                "10.0.0.0/16"
            ]
        );
        assert_eq!(left("::/0", &["8000::/1"]), ["::/1"]);
        assert_eq!(left("10.0.0.0/30", &["10.0.0.0/31", "10.0.0.2/31"]), Vec::<String>::new());
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
            let left = difference(&block);
            for last in 0..=255_u8 {
                let address = [10, 0, 0, last].into();
                let times = left.iter().filter(|network| network.contains(address)).count();
                prop_assert_eq!(times, usize::from(block.contains(address)), "{}", last);
            }
        }
    }
}
