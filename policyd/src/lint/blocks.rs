//! Blocks of addresses and what they leave out.

use ipnetwork::IpNetwork;

use super::{Finding, Subject, WrittenRule};
use crate::model::{IpBlock, Peer, Peers, Rule, parse_cidr};

pub(super) fn check(subject: &Subject<'_>, rule: &WrittenRule<'_>) -> Vec<Finding> {
    let Rule::Allow { peers: Peers::AnyOf(peers), .. } = rule.rule else { return Vec::new() };
    let written = rule.peers.unwrap_or_default().iter().map(|peer| peer.ip_block.as_ref());
    let mut findings = Vec::new();
    for (index, (peer, written)) in peers.iter().zip(written).enumerate() {
        let (Peer::IpBlock(block), Some(written)) = (peer, written) else { continue };
        let path = format!("{}[{index}].ipBlock", rule.peers_path());
        let except: Vec<IpNetwork> =
            written.except.iter().flatten().filter_map(|text| parse_cidr(text)).collect();
        if is_covered(block.cidr, &except) {
            let text = format!("nothing of {} is left: this peer is nobody", block.cidr);
            findings.push(subject.warning(&format!("{path}.except"), text));
        }
        for (at, network) in except.iter().enumerate() {
            let why = repeated(&except, at, *network)
                .or_else(|| allowed_by_another(rule, peers, index, *network));
            if let Some(why) = why {
                let text = format!("{network} leaves out nothing: {why}");
                findings.push(subject.warning(&format!("{path}.except[{at}]"), text));
            }
        }
    }
    findings
}

/// Whether another exception leaves out the same or more. Of equal ones the first counts.
fn repeated(except: &[IpNetwork], at: usize, network: IpNetwork) -> Option<String> {
    let covers = |(index, other): &(usize, &IpNetwork)| {
        *index != at && contains(**other, network) && (**other != network || *index < at)
    };
    let (index, other) = except.iter().enumerate().find(covers)?;
    Some(format!("except[{index}] ({other}) does already"))
}

/// Whether another peer of the rule allows it all the same: what is left out is left out of its
/// own block alone.
fn allowed_by_another(
    rule: &WrittenRule<'_>,
    peers: &[Peer],
    own: usize,
    network: IpNetwork,
) -> Option<String> {
    let allows = |(index, peer): &(usize, &Peer)| match peer {
        Peer::IpBlock(IpBlock { cidr, except }) => {
            let overlaps = |it: &IpNetwork| contains(*it, network) || contains(network, *it);
            *index != own && contains(*cidr, network) && !except.iter().any(overlaps)
        }
        Peer::Pods { .. } => false,
    };
    let (index, _) = peers.iter().enumerate().find(allows)?;
    let field = rule.peers_path();
    Some(format!("{field}[{index}] allows it (each except is of its own block alone)"))
}

fn contains(outer: IpNetwork, inner: IpNetwork) -> bool {
    outer.prefix() <= inner.prefix() && outer.contains(inner.ip())
}

/// Whether the parts make up all of `block`.
fn is_covered(block: IpNetwork, parts: &[IpNetwork]) -> bool {
    if parts.iter().any(|part| contains(*part, block)) {
        return true;
    }
    let within: Vec<IpNetwork> =
        parts.iter().copied().filter(|part| contains(block, *part)).collect();
    !within.is_empty()
        && halves(block).is_some_and(|both| both.iter().all(|half| is_covered(*half, &within)))
}

fn halves(block: IpNetwork) -> Option<[IpNetwork; 2]> {
    let prefix = block.prefix().checked_add(1)?;
    let lower = IpNetwork::new(block.ip(), prefix).ok()?;
    let upper = match block.ip() {
        std::net::IpAddr::V4(ip) => {
            let bit = 1_u32.checked_shl(32_u32.checked_sub(prefix.into())?)?;
            std::net::IpAddr::from((u32::from(ip) | bit).to_be_bytes())
        }
        std::net::IpAddr::V6(ip) => {
            let bit = 1_u128.checked_shl(128_u32.checked_sub(prefix.into())?)?;
            std::net::IpAddr::from((u128::from(ip) | bit).to_be_bytes())
        }
    };
    Some([lower, IpNetwork::new(upper, prefix).ok()?])
}
