//! By what an attachment's elements of nf_tables are known.

use crate::names::hex;

use super::mapping::Holder;

/// nft has no longer comments.
const LONGEST_COMMENT: usize = 128;

/// The comment of an attachment's elements, which begins with what no other attachment's does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    /// Of hashes of network, interface and container.
    prefix: String,
    /// The prefix, and the names.
    pub(super) comment: String,
}

impl Owner {
    /// Of a container's interface in a network.
    pub(super) fn new(network: &str, container_id: &str, ifname: &str) -> Self {
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

    /// Whether something with this comment is the attachment's.
    pub(super) fn has(&self, comment: Option<&str>) -> bool {
        comment.is_some_and(|comment| comment.starts_with(&self.prefix))
    }
}

/// What the comments of a network's elements begin with.
pub(super) fn of_network(network: &str) -> String {
    format!("{}-", hex(network, 8))
}

/// Whose something with this comment is. The container's id may be its beginning only.
pub(super) fn holder(comment: &str) -> Option<Holder> {
    let (_, rest) = comment.split_once(", net: ")?;
    let (network, rest) = rest.split_once(", if: ").unwrap_or((rest, ""));
    let (ifname, container_id) = rest.split_once(", id: ").unwrap_or((rest, ""));
    Some(Holder {
        network: network.to_owned(),
        container_id: container_id.to_owned(),
        is_cut: comment.len() >= LONGEST_COMMENT,
        ifname: (!ifname.is_empty()).then(|| ifname.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_tells_whose_it_is() {
        let owner = Owner::new("n1", "cid1", "eth0");
        assert_eq!(owner.comment, "43d91f8451058a70-0b65a318f52e521b, net: n1, if: eth0, id: cid1");
        assert!(owner.has(Some(&owner.comment)) && !owner.has(None));
        assert!(!owner.has(Some(&Owner::new("n1", "cid1", "eth1").comment)));
        assert!(owner.comment.starts_with(&of_network("n1")));
        let expected = Holder {
            network: "n1".into(),
            container_id: "cid1".into(),
            is_cut: false,
            ifname: Some("eth0".into()),
        };
        assert_eq!(holder(&owner.comment), Some(expected));
        assert_eq!(holder("something else"), None);
    }

    #[test]
    fn long_names_are_told_as_far_as_there_is_room() {
        let owner = Owner::new(&"n".repeat(20), &"c".repeat(64), "eth0");
        assert_eq!(owner.comment.len(), LONGEST_COMMENT);
        let cut = holder(&owner.comment).unwrap();
        assert!(cut.container_id.len() < 64 && cut.may_be(&"c".repeat(64)) && !cut.may_be("d"));
        let owner = Owner::new(&"n".repeat(200), "c", "eth0");
        assert_eq!(holder(&owner.comment).unwrap().ifname, None);
        assert!(owner.has(Some(&owner.comment)));
    }
}
