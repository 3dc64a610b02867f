//! Who holds a port.

use crate::owner::{LONGEST_COMMENT, Owner};

use super::identity::Identity;
use super::mapping::{Held, Holder, Tag};

/// Whether what is published is of an attachment of this container. Runtimes have all networks of a container publish
/// the same ports.
pub(super) fn is_of_container(held: &Held, container_id: &str) -> bool {
    let Holder { network, ifname, .. } = &held.holder;
    match &held.tag {
        Tag::Chain(chain) => Identity::new(network, container_id).chain == *chain,
        Tag::Comment(comment) => ifname
            .as_ref()
            .is_some_and(|it| Owner::new(network, container_id, it).has(Some(comment))),
        Tag::Id(id) => id == container_id,
    }
}

/// Whose an element of nf_tables with this comment is. The container's id may be its beginning only.
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
    use crate::portmap::mapping::{Key, Protocol};

    #[test]
    fn what_other_attachments_of_the_container_hold_is_known() {
        let key = Key { protocol: Protocol::Tcp, port: 80, address: None };
        let held = |tag: Tag, holder: Holder| Held { key, to: [10, 1, 0, 2].into(), holder, tag };
        let long_id = "c".repeat(100);
        for id in ["cid1", &long_id] {
            let comment = Owner::new("n1", id, "eth0").comment;
            let one = held(Tag::Comment(comment.clone()), holder(&comment).unwrap());
            assert!(is_of_container(&one, id) && !is_of_container(&one, "cid"), "{comment}");
            let network = || Holder { network: "n1".into(), ..Holder::unknown() };
            let two = held(Tag::Chain(Identity::new("n1", id).chain), network());
            assert!(is_of_container(&two, id) && !is_of_container(&two, "cid"));
            let three = held(Tag::Id(id.to_owned()), Holder::unknown());
            assert!(is_of_container(&three, id) && !is_of_container(&three, "cid"));
        }
        // Of whom too little is told is somebody else.
        let comment = Owner::new(&"n".repeat(128), "cid1", "eth0").comment;
        let cut = held(Tag::Comment(comment.clone()), holder(&comment).unwrap());
        assert!(!is_of_container(&cut, "cid1"));
    }

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
