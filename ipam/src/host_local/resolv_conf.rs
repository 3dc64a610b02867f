//! `resolv.conf` for the result's `dns`: pure.

use cni::Dns;

/// Reads the lines `nameserver`, `domain`, `search` and `options`; `#` and `;` begin comments.
///
/// `search` and `options` accumulate, of `domain` the last counts, and a `nameserver` line names one
/// (reference behaviour; the resolver itself would let the last `search` win).
#[must_use]
pub(super) fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(keyword), Some(first)) = (words.next(), words.next()) else { continue };
        let all = || std::iter::once(first).chain(words.clone()).map(str::to_owned);
        match keyword {
            "nameserver" => dns.nameservers.push(first.to_owned()),
            "domain" => first.clone_into(&mut dns.domain),
            "search" => dns.search.extend(all()),
            "options" => dns.options.extend(all()),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_the_reference_reads_them() {
        let text = "# a comment\n; another\nnameserver 10.0.0.10 ignored\n  nameserver fd00::a\n\
                    domain old\ndomain example.org\nsearch a b\nsearch c\noptions ndots:5\n\
                    options rotate\nnameserver\nsortlist x\n";
        let dns = parse(text);
        assert_eq!(dns.nameservers, ["10.0.0.10", "fd00::a"]);
        assert_eq!(dns.domain, "example.org");
        assert_eq!(dns.search, ["a", "b", "c"]);
        assert_eq!(dns.options, ["ndots:5", "rotate"]);
        assert!(parse("#nameserver 1.1.1.1\n").is_empty());
    }
}
