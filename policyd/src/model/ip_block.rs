//! Blocks of addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use k8s_openapi::api::networking::v1::IPBlock;

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

/// `address/prefix length` without host bits. An IPv4 block wrapped in IPv6 (`::ffff:10.0.0.0/104`)
/// is one of IPv4, as it is to Go.
pub(crate) fn parse_cidr(text: &str) -> Option<IpNetwork> {
    let (address, prefix) = text.split_once('/')?;
    if !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (address, prefix) = (address.parse::<IpAddr>().ok()?, prefix.parse::<u8>().ok()?);
    let block = match (address.to_canonical(), prefix.checked_sub(96)) {
        (unwrapped @ IpAddr::V4(_), Some(prefix)) if address.is_ipv6() => {
            IpNetwork::new(unwrapped, prefix).ok()?
        }
        _ => IpNetwork::new(address, prefix).ok()?,
    };
    IpNetwork::new(block.network(), block.prefix()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

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
