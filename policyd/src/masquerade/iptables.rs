//! The rules of table nat of iptables.

use ipnetwork::IpNetwork;
use ruleset::iptables::{Chain, Match, Rule, Side, Target};

use super::{Config, Options};
use crate::iptables::Family;
use crate::own_chain::{OwnChain, Place};

/// The chain of ours, and what the names of all begin with.
pub const CHAIN: &str = "PODWIRE-MASQUERADE";

/// Protocols whose connections have ports that `--to-ports` can choose.
const WITH_PORTS: [&str; 3] = ["tcp", "udp", "sctp"];

/// The jump to [`chain`], which belongs at the end of `POSTROUTING`: others that masquerade decide
/// first. What goes to the node itself stays as it is.
#[must_use]
pub fn hook() -> Rule {
    Rule::new([Match::NotLocalAddress(Side::Destination)], Target::Jump(CHAIN.to_owned()))
        .labelled("masquerade what leaves")
}

/// Where the chain hangs.
pub(super) fn own_chain() -> OwnChain {
    let (name, from) = (CHAIN, "POSTROUTING");
    OwnChain { table: "nat", name, from, jump: hook(), place: Place::Last }
}

/// The chain of one family: it returns for what is not masqueraded, and masquerades the rest.
#[must_use]
pub fn chain(config: &Config, options: &Options, family: Family) -> Chain {
    let mut rules: Vec<Rule> = super::spared(config, family).map(spare).collect();
    for protocol in WITH_PORTS {
        rules.extend(options.to_ports.shares().map(|(range, of_million)| {
            let chance = (of_million < 1_000_000).then_some(Match::ByChance { of_million });
            let matches = [Match::Protocol(protocol)].into_iter().chain(chance);
            Rule::new(matches.collect::<Vec<_>>(), masquerade(options, Some(range)))
        }));
    }
    rules.push(Rule::new([], masquerade(options, None)));
    Chain { name: CHAIN.to_owned(), rules }
}

fn spare(destination: IpNetwork) -> Rule {
    Rule::new([Match::Address(Side::Destination, destination)], Target::Return)
}

fn masquerade(options: &Options, to_ports: Option<ruleset::iptables::PortRange>) -> Target {
    Target::Masquerade { random_fully: options.random_fully, to_ports }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(config: &Config, options: &Options, family: Family) -> Vec<String> {
        chain(config, options, family).rules.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn by_default_private_and_local_destinations_are_left_alone() {
        let options = Options::default();
        assert_eq!(
            texts(&Config::default_for(&options), &options, Family::V4),
            [
                "-d 224.0.0.0/4 -j RETURN",
                "-d 169.254.0.0/16 -j RETURN",
                "-d 10.0.0.0/8 -j RETURN",
                "-d 172.16.0.0/12 -j RETURN",
                "-d 192.168.0.0/16 -j RETURN",
                "-p tcp -m statistic --mode random --probability 0.469292 -j MASQUERADE --to-ports 1024-29999 --random-fully",
                "-p tcp -j MASQUERADE --to-ports 32768-65535 --random-fully",
                "-p udp -m statistic --mode random --probability 0.469292 -j MASQUERADE --to-ports 1024-29999 --random-fully",
                "-p udp -j MASQUERADE --to-ports 32768-65535 --random-fully",
                "-p sctp -m statistic --mode random --probability 0.469292 -j MASQUERADE --to-ports 1024-29999 --random-fully",
                "-p sctp -j MASQUERADE --to-ports 32768-65535 --random-fully",
                "-j MASQUERADE --random-fully",
            ]
        );
        assert_eq!(hook().to_string(), "-m addrtype ! --dst-type LOCAL -j PODWIRE-MASQUERADE");
    }

    #[test]
    fn each_family_has_its_own_blocks() {
        let options = Options {
            ipv6: true,
            random_fully: false,
            to_ports: "".parse().unwrap(),
            ..Options::default()
        };
        let mut config = Config::default_for(&options);
        config.non_masquerade =
            ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().unwrap()).to_vec();
        config.masquerade_link_local = true;
        assert_eq!(
            texts(&config, &options, Family::V4),
            ["-d 224.0.0.0/4 -j RETURN", "-d 10.0.0.0/8 -j RETURN", "-j MASQUERADE"]
        );
        assert_eq!(
            texts(&config, &options, Family::V6),
            [
                "-d ff00::/8 -j RETURN",
                "-d fe80::/10 -j RETURN",
                "-d fd00::/8 -j RETURN",
                "-j MASQUERADE",
            ]
        );
        config.masquerade_link_local_ipv6 = true;
        assert_eq!(texts(&config, &options, Family::V6).len(), 3);
    }
}
