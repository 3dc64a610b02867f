//! By what names things of the plugins are known in a host's kernel: they have no other memory, and policyd takes
//! away by them what is left when podwire comes off a node.

/// The table of nf_tables, of the family inet, by which ports of the host lead to containers (portmap).
pub const PORTMAP_TABLE: &str = "podwire-portmap";
/// That of the family netdev by which what containers send passes their IFBs (bandwidth).
pub const BANDWIDTH_TABLE: &str = "podwire-bandwidth";
/// That of the family inet by which bridges are kept apart (firewall).
pub const FIREWALL_TABLE: &str = "podwire-firewall";
/// What the names begin with of chains in iptables' table filter that tell the addresses of attachments (firewall):
/// nothing leads to them, and the reference plugins know nothing of them.
pub const RECORD_PREFIX: &str = "CNI-FW-";
/// Hexadecimal digits of each of the two hashes that a comment begins with.
const DIGITS: usize = 16;

/// Whether a comment, or a link's alias, tells an attachment in the plugins' words: hashes of its network and of its
/// interface and container, and their names (`43d91f8451058a70-0b65a318f52e521b, net: n1, if: eth0, id: c1`).
#[must_use]
pub fn tells_attachment(comment: &str) -> bool {
    let is_hash = |text: &str| {
        text.len() == DIGITS && text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
    };
    let hashes = comment.split_once(", net: ").and_then(|(hashes, _)| hashes.split_once('-'));
    hashes.is_some_and(|(network, attachment)| is_hash(network) && is_hash(attachment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_of_others_tell_no_attachment() {
        let own = "43d91f8451058a70-0b65a318f52e521b, net: n1, if: eth0, id: c1";
        assert!(tells_attachment(own));
        for other in [
            "",
            "uplink",
            ", net: n1",
            "43d91f8451058a70-, net: n1",
            "43d91f8451058a70-0b65a318f52e521b",
            "43d91f8451058a70-0b65a318f52e521, net: n1",
            "43D91f8451058a70-0b65a318f52e521b, net: n1",
            &format!("my {own}"),
        ] {
            assert!(!tells_attachment(other), "{other}");
        }
    }
}
