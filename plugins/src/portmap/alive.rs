//! Whether who holds a port still is there: nobody tells a plugin of containers whose DEL never came.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use cni::Call;
use ipnetwork::IpNetwork;
use netlink::{Neighbour, Request, Socket};

use super::mapping::{Held, Holder, Tag};
use crate::error::Error;
use crate::lease::Lease;

/// Who is there answers within a fraction of this. All are asked at once.
const PATIENCE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(10);

/// A container that wants ports, and its addresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct Newcomer<'a> {
    network: &'a str,
    container_id: &'a str,
    addresses: &'a [Option<IpNetwork>; 2],
}

impl<'a> Newcomer<'a> {
    /// The container of a call.
    pub(super) fn new(call: &'a Call, addresses: &'a [Option<IpNetwork>; 2]) -> Self {
        Self { network: &call.conf.name, container_id: &call.container_id, addresses }
    }

    /// Whether the leases of a network are kept here, by that of an address of its own in the network.
    fn shows_leases_by(&self, data_dir: &Path, network: &str, address: IpAddr) -> bool {
        let lease = Lease::read(data_dir, network, address).filter(|_| self.network == network);
        lease.is_some_and(|it| it.container_id == self.container_id)
    }

    /// Its address of a family.
    fn address(&self, is_ipv4: bool) -> Option<IpAddr> {
        let addresses = self.addresses.iter().flatten().map(IpNetwork::ip);
        addresses.into_iter().find(|it| it.is_ipv4() == is_ipv4)
    }
}

/// What of that which is held is of attachments that are alive.
#[derive(Debug)]
pub(super) struct Alive<'a> {
    /// By what the rest of theirs is known, and where it leads.
    at: BTreeSet<(&'a Tag, IpAddr)>,
    /// The reference's rules of a family (IPv4 or not) go together, and stay together.
    together: BTreeSet<(&'a Tag, bool)>,
}

impl Alive<'_> {
    /// Whether what is held is among it.
    pub(super) fn has(&self, held: &Held) -> bool {
        self.at.contains(&(&held.tag, held.to))
            || self.together.contains(&(&held.tag, held.to.is_ipv4()))
    }
}

/// Which of what is held is of attachments that are alive: no lease says that the address is another's by now, and the
/// address is on a link of this host.
pub(super) fn alive<'a>(
    held: impl Iterator<Item = &'a Held>,
    newcomer: Newcomer<'_>,
) -> Result<Alive<'a>, Error> {
    let mut seen = BTreeSet::new();
    let mut asked = Vec::new();
    for held in held {
        if seen.insert((&held.tag, held.to)) && !is_given_away(held, newcomer) {
            asked.push(held);
        }
    }
    let attached = attached(&asked, newcomer)?;
    let alive = asked.into_iter().filter(|it| attached.contains(&it.to));
    let at: BTreeSet<(&Tag, IpAddr)> = alive.map(|it| (&it.tag, it.to)).collect();
    let of_reference = at.iter().filter(|(tag, _)| matches!(tag, Tag::Id(_)));
    let together = of_reference.map(|(tag, to)| (*tag, to.is_ipv4())).collect();
    Ok(Alive { at, together })
}

/// Whether the holder's address is another's by now. One that is the newcomer's is nobody else's.
fn is_given_away(held: &Held, newcomer: Newcomer<'_>) -> bool {
    newcomer.address(held.to.is_ipv4()) == Some(held.to)
        || is_leased_away(ipam::listing::default_data_dir(), &held.holder, held.to, newcomer)
}

/// Whether host-local has taken the address back, or given it to somebody else. Where it keeps its files elsewhere, and
/// where others give addresses, nobody knows: there may still be a folder of before, with the leases of then.
fn is_leased_away(
    data_dir: &Path,
    holder: &Holder,
    address: IpAddr,
    newcomer: Newcomer<'_>,
) -> bool {
    let shows = |it: IpAddr| newcomer.shows_leases_by(data_dir, &holder.network, it);
    let is_known = newcomer.address(address.is_ipv4()).is_some_and(shows);
    // Of a family in which it has none there need not be any: only what one says is believed.
    if !is_known && !newcomer.address(!address.is_ipv4()).is_some_and(shows) {
        return false;
    }
    let is_holders = |lease: &Lease| {
        let is_other = match (&holder.ifname, &lease.ifname) {
            (Some(one), Some(another)) => one != another,
            _ => false,
        };
        holder.may_be(&lease.container_id) && !is_other
    };
    match Lease::read(data_dir, &holder.network, address) {
        Some(lease) => !is_holders(&lease),
        None => is_known,
    }
}

/// The addresses that are behind links of this host. A route to one alone goes with the link; on a bridge it is asked
/// for.
fn attached(held: &[&Held], newcomer: Newcomer<'_>) -> Result<BTreeSet<IpAddr>, netlink::Error> {
    let (mut attached, mut asked) = (BTreeSet::new(), BTreeSet::new());
    if held.is_empty() {
        return Ok(attached);
    }
    let mut socket = Socket::open()?;
    for held in held {
        let Some(route) = socket.matching_route(held.to)? else { continue };
        // That is the way of what is nowhere here.
        if route.dst.prefix() == 0 {
            continue;
        }
        if route.gateway.is_none() {
            asked.insert((route.link, held.to));
        } else if !is_way_of_others(&mut socket, held, newcomer)? {
            // Nobody answers through a gateway.
            attached.insert(held.to);
        }
    }
    // Whom nobody asks for is there as long as that is said, and is not to be forgotten.
    let told = neighbours(&mut socket, &asked, |it| it.is_static)?;
    asked.retain(|it| !told.contains(it));
    attached.extend(told.iter().map(|it| it.1));
    // An old answer may be of one who has gone.
    let requests = asked.iter().flat_map(|(link, address)| {
        [Request::forget_neighbour(*link, *address), Request::ask_for_neighbour(*link, *address)]
    });
    socket.execute(&requests.collect::<Vec<_>>())?;
    let mut waited = Duration::ZERO;
    while !asked.is_empty() {
        let there = neighbours(&mut socket, &asked, |it| it.mac.is_some() || it.is_static)?;
        asked.retain(|it| !there.contains(it));
        attached.extend(there.iter().map(|it| it.1));
        if waited >= PATIENCE {
            break;
        }
        sleep(PAUSE);
        waited += PAUSE;
    }
    Ok(attached)
}

/// Whether a route with a gateway, such as that to all of a site, is none to the holder: those of the newcomer's network
/// and of its range of addresses are on links of this host, as it is.
fn is_way_of_others(
    socket: &mut Socket,
    held: &Held,
    newcomer: Newcomer<'_>,
) -> Result<bool, netlink::Error> {
    let own = newcomer.addresses.iter().flatten().find(|it| it.contains(held.to));
    let Some(own) = own.filter(|_| newcomer.network == held.holder.network) else {
        return Ok(false);
    };
    Ok(socket.matching_route(own.ip())?.is_some_and(|it| it.gateway.is_none()))
}

/// Those of the addresses, each with its link, of which the kernel knows a neighbour that `is_one`.
fn neighbours(
    socket: &mut Socket,
    of: &BTreeSet<(u32, IpAddr)>,
    is_one: impl Fn(&Neighbour) -> bool,
) -> Result<BTreeSet<(u32, IpAddr)>, netlink::Error> {
    let mut found = BTreeSet::new();
    for is_ipv4 in [true, false] {
        if of.iter().any(|(_, address)| address.is_ipv4() == is_ipv4) {
            let neighbours = socket.neighbours(is_ipv4)?.into_iter().filter(|it| is_one(it));
            found.extend(neighbours.map(|it| (it.link, it.address)));
        }
    }
    found.retain(|it| of.contains(it));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const NEW: [Option<&str>; 2] = [Some("10.1.0.3/24"), None];

    /// Of the family in which it has no address.
    const OTHER: &str = "fd00:1::2";

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn holder(container_id: &str, ifname: Option<&str>) -> Holder {
        Holder {
            network: "net1".into(),
            container_id: container_id.into(),
            is_cut: false,
            ifname: ifname.map(str::to_owned),
        }
    }

    /// Whether the holder's address is leased away, as a container "new" of `network` sees it.
    fn is_away(home: &Path, holder: &Holder, network: &str) -> bool {
        is_away_at(home, holder, network, "10.1.0.2")
    }

    fn is_away_at(home: &Path, holder: &Holder, network: &str, at: &str) -> bool {
        let addresses = NEW.map(|it| it.map(|text| text.parse().unwrap()));
        let newcomer = Newcomer { network, container_id: "new", addresses: &addresses };
        is_leased_away(home, holder, address(at), newcomer)
    }

    /// Who gives the addresses of one family need not give those of the other: that one has no lease there means nothing.
    #[test]
    fn of_another_family_a_lease_tells_by_what_it_says() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("net1");
        fs::create_dir(&folder).unwrap();
        let is_away = || is_away_at(home.path(), &holder("cid1", Some("eth0")), "net1", OTHER);
        let lease = |text: &str| fs::write(folder.join(OTHER), text).unwrap();
        lease("cid2\r\neth0");
        assert!(!is_away(), "its own lease does not tell that leases are kept here");
        fs::write(folder.join("10.1.0.3"), "new\r\neth0").unwrap();
        assert!(is_away());
        lease("cid1\r\neth0");
        assert!(!is_away());
        fs::remove_file(folder.join(OTHER)).unwrap();
        assert!(!is_away());
    }

    #[test]
    fn a_lease_tells_whose_an_address_is() {
        let home = tempfile::tempdir().unwrap();
        let is_away = |holder: &Holder| is_away(home.path(), holder, "net1");
        let folder = home.path().join("net1");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("10.1.0.3"), "new\r\neth0").unwrap();
        fs::write(folder.join("10.1.0.2"), "cid1\r\neth0").unwrap();
        for (container_id, ifname, expected) in [
            ("cid1", None, false),
            ("cid1", Some("eth0"), false),
            ("cid1", Some("net1"), true),
            ("cid2", None, true),
            ("cid", None, true),
        ] {
            assert_eq!(is_away(&holder(container_id, ifname)), expected, "{container_id}");
            let cut = Holder { is_cut: true, ..holder("ci", ifname) };
            assert_eq!(is_away(&cut), ifname == Some("net1"));
        }
        fs::write(folder.join("10.1.0.2"), "cid1").unwrap();
        assert!(!is_away(&holder("cid1", Some("eth0"))));
        let strange = Holder { network: "../net1".into(), ..holder("cid1", None) };
        assert!(!is_away(&strange));
    }

    /// A folder of before the configuration had another tells nothing, neither by what is in it nor by what is not.
    #[test]
    fn leases_tell_only_where_they_are_kept() {
        let home = tempfile::tempdir().unwrap();
        let holder = holder("cid1", None);
        let is_away = |network| is_away(home.path(), &holder, network);
        let folders = ["net1", "net2"].map(|it| home.path().join(it));
        assert!(!is_away("net1"));
        for folder in &folders {
            fs::create_dir(folder).unwrap();
            assert!(!is_away("net1"));
            fs::write(folder.join("10.1.0.2"), "of before\r\neth0").unwrap();
            assert!(!is_away("net1"));
            fs::write(folder.join("10.1.0.3"), "another\r\neth0").unwrap();
            assert!(!is_away("net1") && !is_away("net2"));
        }
        for folder in &folders {
            fs::write(folder.join("10.1.0.3"), "new\r\neth0").unwrap();
        }
        assert!(is_away("net1") && !is_away("net2"));
        fs::remove_file(folders[0].join("10.1.0.2")).unwrap();
        assert!(is_away("net1"));
    }
}
