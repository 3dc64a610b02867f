//! Conditions in the language of nft, as far as they are understood: no program reads them for us.

use ipnetwork::IpNetwork;
use ruleset::iptables::Side;
use ruleset::nft::Match;

/// What is told where a condition is not understood.
const UNDERSTOOD: &str = "ip|ip6 saddr|daddr [!=] ADDRESS[/PREFIX], iifname [!=] NAME, fib daddr type local; \
    others need backend iptables, and its language";

/// Reads conditions of a family: words of nft, however they are spread over `tokens`. An error tells what is
/// understood.
pub(super) fn parse(tokens: &[&str], is_ipv4: bool) -> Result<Vec<Match>, String> {
    let text = tokens.join(" ");
    let mut words = text.split_ascii_whitespace();
    let mut matches = Vec::new();
    while let Some(word) = words.next() {
        let found = match word {
            "ip" | "ip6" if (word == "ip") == is_ipv4 => address(&mut words, is_ipv4),
            "iifname" => interface(&mut words),
            // It is asked of every packet anyway.
            "fib"
                if [words.next(), words.next(), words.next()]
                    == [Some("daddr"), Some("type"), Some("local")] =>
            {
                continue;
            }
            _ => None,
        };
        let family = if is_ipv4 { "IPv4" } else { "IPv6" };
        matches.push(found.ok_or_else(|| {
            format!(
                "cannot read {text:?} at {word:?} for {family}; what is understood: {UNDERSTOOD}"
            )
        })?);
    }
    Ok(matches)
}

fn address<'a>(words: &mut impl Iterator<Item = &'a str>, is_ipv4: bool) -> Option<Match> {
    let side = match words.next()? {
        "saddr" => Side::Source,
        "daddr" => Side::Destination,
        _ => return None,
    };
    let (is_negated, value) = operand(words)?;
    let network = match value.split_once('/') {
        Some(_) => cni::parse_cidr(value)?,
        None => IpNetwork::from(cni::parse_address(value)?),
    };
    (network.is_ipv4() == is_ipv4).then_some(if is_negated {
        Match::NotAddress(side, network)
    } else {
        Match::Address(side, network)
    })
}

fn interface<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Match> {
    let (is_negated, value) = operand(words)?;
    let name = value.trim_matches('"');
    // nft's names may end with `*`.
    let is_name = cni::ifname_problem(name).is_none() && !name.contains(['*', '"', '@', '{', '$']);
    is_name.then(|| {
        if is_negated {
            Match::NotInInterface(name.to_owned())
        } else {
            Match::InInterface(name.to_owned())
        }
    })
}

/// What follows, perhaps behind an operator, and whether it is negated.
fn operand<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<(bool, &'a str)> {
    match words.next()? {
        "!=" => Some((true, words.next()?)),
        "==" => Some((false, words.next()?)),
        value => Some((false, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(tokens: &[&str], is_ipv4: bool) -> Result<Vec<String>, String> {
        Ok(parse(tokens, is_ipv4)?.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_understood_prints_as_nft_lists_it() {
        let four = [
            "ip saddr != 10.0.0.7/8 iifname",
            "eth0",
            "fib",
            "daddr type local",
            "ip daddr == 192.0.2.1",
        ];
        assert_eq!(
            told(&four, true).unwrap(),
            ["ip saddr != 10.0.0.0/8", "iifname \"eth0\"", "ip daddr 192.0.2.1"]
        );
        let six = ["ip6 daddr 2001:db8::1 iifname != \"a.b\""];
        assert_eq!(told(&six, false).unwrap(), ["ip6 daddr 2001:db8::1", "iifname != \"a.b\""]);
        assert_eq!(told(&[], true).unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_not_understood_is_told_with_what_is() {
        for (tokens, is_ipv4) in [
            (&["ip", "daddr", "{ 10.0.0.1, 10.0.0.2 }"][..], true),
            (&["ip daddr"], true),
            (&["ip daddr !="], true),
            (&["ip ttl 1"], true),
            (&["ip6 daddr ::1"], true),
            (&["ip daddr 10.0.0.1"], false),
            (&["ip daddr fd00::1"], true),
            (&["iifname eth*"], true),
            (&["iifname"], true),
            (&["fib saddr type local"], true),
            (&["tcp dport 80"], true),
            (&["meta mark 1"], true),
        ] {
            let problem = told(tokens, is_ipv4).unwrap_err();
            assert!(problem.contains("iifname [!=] NAME"), "{problem}");
        }
    }
}
