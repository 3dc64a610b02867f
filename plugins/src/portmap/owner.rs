//! Who holds a port, by the comment of an element of nf_tables.

use crate::owner::LONGEST_COMMENT;

use super::mapping::Holder;

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
    use crate::owner::Owner;

    #[test]
    fn a_comment_tells_whose_it_is() {
        let owner = Owner::new("n1", "cid1", "eth0");
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
    }
}
