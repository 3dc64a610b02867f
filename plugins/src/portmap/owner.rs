//! Who holds a port.

use std::cell::OnceCell;
use std::net::IpAddr;

use cni::Call;

use crate::error::warn;
use crate::owner::{LONGEST_COMMENT, Owner};
use crate::veth;

use super::identity::Identity;
use super::mapping::{Held, Holder, Tag};

/// The other interfaces of a call's container, which are looked at once, if at all.
#[derive(Debug)]
pub(super) struct Siblings<'a> {
    call: &'a Call,
    /// What is the call's own interface's, whoever else has it; nothing where no result tells.
    own: Vec<IpAddr>,
    addresses: OnceCell<Vec<IpAddr>>,
}

impl<'a> Siblings<'a> {
    /// Those beside the interface of a call, which has its `own` addresses.
    pub(super) const fn of(call: &'a Call, own: Vec<IpAddr>) -> Self {
        Self { call, own, addresses: OnceCell::new() }
    }

    /// Whether one of them has an address.
    pub(super) fn have(&self, address: IpAddr) -> bool {
        let look = || match veth::addresses_of_others(self.call, self.own.is_empty()) {
            Ok(addresses) => addresses.iter().map(|it| it.ip()).collect(),
            Err(error) => {
                warn(&format!(
                    "the addresses of the container's other interfaces are not known: {error}"
                ));
                Vec::new()
            }
        };
        !self.own.contains(&address) && self.addresses.get_or_init(look).contains(&address)
    }

    /// Whether what is published is of an attachment of the container. Runtimes have all networks of a container publish
    /// the same ports.
    pub(super) fn hold(&self, held: &Held) -> bool {
        is_of_container(held, &self.call.container_id, |address| self.have(address))
    }
}

/// The same; where the names had no room, it is of whom it leads to.
fn is_of_container(
    held: &Held,
    container_id: &str,
    leads_to_it: impl FnOnce(IpAddr) -> bool,
) -> bool {
    let Holder { network, ifname, .. } = &held.holder;
    match (&held.tag, ifname) {
        (Tag::Chain(chain), _) => Identity::new(network, container_id).chain == *chain,
        (Tag::Comment(comment), Some(ifname)) => {
            Owner::new(network, container_id, ifname).has(Some(comment))
        }
        (Tag::Comment(_), None) => leads_to_it(held.to),
        (Tag::Id(id), _) => id == container_id,
    }
}

/// Whose an element of nf_tables with this comment is, as far as it tells names whole: all but the last one are. Of the
/// container's id there may be the beginning.
pub(super) fn holder(comment: &str) -> Option<Holder> {
    let (_, names) = comment.split_once(", net: ")?;
    let is_cut = comment.len() >= LONGEST_COMMENT;
    let unknown = Holder { is_cut, ..Holder::unknown() };
    let Some((network, names)) = names.split_once(", if: ") else { return Some(unknown) };
    let named = Holder { network: network.to_owned(), ..unknown };
    let Some((ifname, container_id)) = names.split_once(", id: ") else { return Some(named) };
    let (ifname, container_id) = (Some(ifname.to_owned()), container_id.to_owned());
    Some(Holder { ifname, container_id, ..named })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::portmap::mapping::{Key, Protocol};

    #[test]
    fn what_other_attachments_of_the_container_hold_is_known() {
        let key = Key { protocol: Protocol::Tcp, port: 80, address: None };
        let held = |tag: Tag, holder: Holder| Held { key, to: [10, 1, 0, 2].into(), holder, tag };
        let is_of = |held: &Held, id: &str| is_of_container(held, id, |_| false);
        let long_id = "c".repeat(100);
        for id in ["cid1", &long_id] {
            let comment = Owner::new("n1", id, "eth0").comment;
            let one = held(Tag::Comment(comment.clone()), holder(&comment).unwrap());
            assert!(is_of(&one, id) && !is_of(&one, "cid"), "{comment}");
            let network = || Holder { network: "n1".into(), ..Holder::unknown() };
            let two = held(Tag::Chain(Identity::new("n1", id).chain), network());
            assert!(is_of(&two, id) && !is_of(&two, "cid"));
            let three = held(Tag::Id(id.to_owned()), Holder::unknown());
            assert!(is_of(&three, id) && !is_of(&three, "cid"));
        }
        // Of whom too little is told, the address tells.
        for length in [75, 80, 128] {
            let comment = Owner::new(&"n".repeat(length), &"c".repeat(64), "eth0").comment;
            let cut = held(Tag::Comment(comment.clone()), holder(&comment).unwrap());
            assert!(!is_of(&cut, "cid1"));
            assert!(is_of_container(&cut, "cid1", |it| it == cut.to));
        }
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
        // The name that was cut is not taken for a whole one.
        for length in 60..100 {
            let network = "n".repeat(length);
            let told = holder(&Owner::new(&network, &"c".repeat(64), "eth0").comment).unwrap();
            assert!(told.is_cut && told.may_be(&"c".repeat(64)), "{length}: {told:?}");
            assert!(told.network == network || told.network.is_empty(), "{length}: {told:?}");
            assert!(told.ifname.is_none_or(|it| it == "eth0"), "{length}");
        }
    }
}
