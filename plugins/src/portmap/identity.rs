//! What tells an attachment's rules from all others.

use crate::names::hex;

/// What the names of the attachments' chains begin with in iptables' table nat.
pub(super) const CHAIN_PREFIX: &str = "CNI-DN-";
/// The same of old releases of the reference, which had one more.
pub(super) const OLD_CHAIN_PREFIX: &str = "CNI-SN-";
/// Names of chains are cut to this.
const CHAIN_LENGTH: usize = 28;
/// iptables has no longer comments; the reference marks those that it cuts.
const LONGEST_COMMENT: usize = 255;

/// An attachment's name in iptables: all of a container's to one network have the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// `CNI-DN-` and 21 hexadecimal digits of the SHA-512 of network and container id.
    pub(super) chain: String,
    /// The same with another beginning.
    pub(super) old_chain: String,
    /// `dnat name: "NETWORK" id: "CONTAINER"`.
    pub(super) comment: String,
}

impl Identity {
    /// Of a container in a network.
    pub(super) fn new(network: &str, container_id: &str) -> Self {
        let digits = hex(&format!("{network}{container_id}"), CHAIN_LENGTH / 2);
        let chain = |prefix: &str| {
            let mut name = format!("{prefix}{digits}");
            name.truncate(CHAIN_LENGTH);
            name
        };
        let mut comment = format!("dnat name: \"{network}\" id: \"{container_id}\"");
        if comment.len() > LONGEST_COMMENT {
            comment.truncate(LONGEST_COMMENT - 2);
            // Of the reference's three dots the kernel keeps two.
            comment.push_str("..");
        }
        Self { chain: chain(CHAIN_PREFIX), old_chain: chain(OLD_CHAIN_PREFIX), comment }
    }

    /// What the comments of a network's containers begin with, as `iptables-save` quotes them.
    pub(super) fn comment_of_network(network: &str) -> String {
        format!("\"dnat name: \\\"{network}\\\" id: \\\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_and_comments_are_those_of_the_reference() {
        let identity = Identity::new("n1", "cid1");
        assert_eq!(identity.chain, "CNI-DN-ca7a875c2b85fc44a8551");
        assert_eq!(identity.old_chain, "CNI-SN-ca7a875c2b85fc44a8551");
        assert_eq!(identity.comment, r#"dnat name: "n1" id: "cid1""#);
        let quoted = format!("\"{}\"", identity.comment.replace('"', "\\\""));
        assert!(quoted.starts_with(&Identity::comment_of_network("n1")));
    }

    #[test]
    fn long_comments_are_cut() {
        let identity = Identity::new("n1", &"c".repeat(250));
        assert_eq!(identity.comment.len(), LONGEST_COMMENT);
        assert!(identity.comment.ends_with("c.."));
        let fits = Identity::new("n1", &"c".repeat(255 - 22)).comment;
        assert!(fits.ends_with("c\"") && fits.len() == LONGEST_COMMENT, "{}", fits.len());
    }
}
