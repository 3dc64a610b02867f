//! By what rules, elements and links of an attachment are known: a text in the reference plugins' words
//! (`pkg/ip/ipmasq_nftables_linux.go`), which begins with hashes.

use cni::{Attachment, Call};

use crate::names::hex;

/// nft has no longer comments.
pub(crate) const LONGEST_COMMENT: usize = 128;

/// The comment of what is an attachment's, which begins with what no other attachment's does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Of hashes of network, interface and container.
    prefix: String,
    /// The prefix, and the names.
    pub(crate) comment: String,
}

impl Owner {
    /// Of a container's interface in a network.
    pub(crate) fn new(network: &str, container_id: &str, ifname: &str) -> Self {
        let prefix =
            format!("{}{}", of_network(network), hex(&format!("{ifname}:{container_id}"), 8));
        let bare = |name: &str| name.replace('"', "");
        let mut comment = format!(
            "{prefix}, net: {}, if: {}, id: {}",
            bare(network),
            bare(ifname),
            bare(container_id)
        );
        comment.truncate(comment.floor_char_boundary(LONGEST_COMMENT));
        Self { prefix, comment }
    }

    /// The attachment that a call is about.
    pub(crate) fn of(call: &Call) -> Self {
        Self::new(&call.conf.name, &call.container_id, &call.ifname)
    }

    /// Whether something with this comment is the attachment's.
    pub(crate) fn has(&self, comment: Option<&str>) -> bool {
        comment.is_some_and(|comment| comment.starts_with(&self.prefix))
    }
}

/// What GC removes: of a network's attachments those that are not valid.
#[derive(Debug)]
pub(crate) struct Stale {
    of_network: String,
    valid: Vec<Owner>,
}

impl Stale {
    /// Of a network, by the list of its valid attachments.
    pub(crate) fn new(network: &str, valid: &[Attachment]) -> Self {
        let owner = |it: &Attachment| Owner::new(network, &it.container_id, &it.ifname);
        Self { of_network: of_network(network), valid: valid.iter().map(owner).collect() }
    }

    /// Whether something with this comment is of such an attachment.
    pub(crate) fn has(&self, comment: Option<&str>) -> bool {
        comment.is_some_and(|it| it.starts_with(&self.of_network))
            && !self.valid.iter().any(|owner| owner.has(comment))
    }
}

/// What the comments of a network's things begin with.
pub(crate) fn of_network(network: &str) -> String {
    format!("{}-", hex(network, 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_those_that_the_reference_writes() {
        let owner = Owner::new("n1", "cid1", "eth0");
        assert_eq!(owner.comment, "43d91f8451058a70-0b65a318f52e521b, net: n1, if: eth0, id: cid1");
        assert!(owner.comment.starts_with(&owner.prefix));
        assert!(owner.has(Some(&owner.comment)) && !owner.has(None));
        assert!(attachment::kernel::tells_attachment(&owner.comment));
        assert!(!owner.has(Some(&Owner::new("n1", "cid1", "eth1").comment)));
        assert!(owner.comment.starts_with(&of_network("n1")));
        let long = Owner::new(&"n".repeat(90), &"c".repeat(64), "a\"b");
        assert_eq!(long.comment.len(), LONGEST_COMMENT);
        assert!(!long.comment.contains('"'));
        let long = Owner::new(&"n".repeat(200), "c", "eth0");
        assert!(long.has(Some(&long.comment)));
        assert!(attachment::kernel::tells_attachment(&long.comment));
    }
}
