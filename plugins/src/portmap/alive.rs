//! Whether who holds a port still is there: nobody tells a plugin of containers whose DEL never came.

use std::net::IpAddr;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use cni::Call;
use netlink::{Request, Socket};

use super::mapping::{Held, Holder};
use crate::error::Error;
use crate::lease::Lease;

/// Who is there answers within a fraction of this.
const PATIENCE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(10);

/// A container that wants a port, and its address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Newcomer<'a> {
    network: &'a str,
    container_id: &'a str,
    address: IpAddr,
}

impl<'a> Newcomer<'a> {
    /// The container of a call.
    pub(super) fn new(call: &'a Call, address: IpAddr) -> Self {
        Self { network: &call.conf.name, container_id: &call.container_id, address }
    }

    /// Whether the leases of a network are kept here: its own is.
    fn shows_leases_of(&self, data_dir: &Path, network: &str) -> bool {
        let own = Lease::read(data_dir, self.network, self.address);
        self.network == network && own.is_some_and(|it| it.container_id == self.container_id)
    }
}

/// Whether a holder's attachment is alive: no lease says that his address is another's by now, and the address is on
/// a link of this host.
pub(super) fn is_alive(held: &Held, newcomer: Newcomer<'_>) -> Result<bool, Error> {
    if is_given_away(ipam::listing::default_data_dir(), &held.holder, held.to, newcomer) {
        return Ok(false);
    }
    Ok(is_attached(held.to)?)
}

/// Whether host-local has given the address back, or to somebody else. Where it keeps its files elsewhere, and where
/// others give addresses, nobody knows: there may still be a folder of before.
fn is_given_away(
    data_dir: &Path,
    holder: &Holder,
    address: IpAddr,
    newcomer: Newcomer<'_>,
) -> bool {
    match Lease::read(data_dir, &holder.network, address) {
        Some(lease) => {
            let is_other = match (&holder.ifname, &lease.ifname) {
                (Some(one), Some(another)) => one != another,
                _ => false,
            };
            !holder.may_be(&lease.container_id) || is_other
        }
        None => newcomer.shows_leases_of(data_dir, &holder.network),
    }
}

/// Whether an address is behind a link of this host. A route to it alone goes with the link; on a bridge it is asked
/// for.
fn is_attached(address: IpAddr) -> Result<bool, netlink::Error> {
    let mut socket = Socket::open()?;
    let Some(route) = socket.route_to(address)? else { return Ok(false) };
    if route.gateway.is_some() {
        return Ok(false);
    }
    // An old answer may be of one who has gone.
    let forget = Request::forget_neighbour(route.link, address);
    socket.execute(&[forget, Request::ask_for_neighbour(route.link, address)])?;
    let mut waited = Duration::ZERO;
    loop {
        let neighbours = socket.neighbours(address.is_ipv4())?;
        let mut of_link = neighbours.iter().filter(|it| it.link == route.link);
        if of_link.any(|it| it.address == address && it.mac.is_some()) {
            return Ok(true);
        }
        if waited >= PATIENCE {
            return Ok(false);
        }
        sleep(PAUSE);
        waited += PAUSE;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_lease_tells_whose_an_address_is() {
        let home = tempfile::tempdir().unwrap();
        let [address, new]: [IpAddr; 2] = ["10.1.0.2", "10.1.0.3"].map(|it| it.parse().unwrap());
        let holder = |container_id: &str, ifname: Option<&str>| Holder {
            network: "net1".into(),
            container_id: container_id.into(),
            is_cut: false,
            ifname: ifname.map(str::to_owned),
        };
        let newcomer = |network| Newcomer { network, container_id: "new", address: new };
        let given_away =
            |holder: &Holder| is_given_away(home.path(), holder, address, newcomer("net1"));
        let folder = home.path().join("net1");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("10.1.0.2"), "cid1\r\neth0").unwrap();
        for (container_id, ifname, expected) in [
            ("cid1", None, false),
            ("cid1", Some("eth0"), false),
            ("cid1", Some("net1"), true),
            ("cid2", None, true),
            ("cid", None, true),
        ] {
            assert_eq!(given_away(&holder(container_id, ifname)), expected, "{container_id}");
            let cut = Holder { is_cut: true, ..holder("ci", ifname) };
            assert_eq!(given_away(&cut), ifname == Some("net1"));
        }
        fs::write(folder.join("10.1.0.2"), "cid1").unwrap();
        assert!(!given_away(&holder("cid1", Some("eth0"))));
        let strange = Holder { network: "../net1".into(), ..holder("cid1", None) };
        assert!(!given_away(&strange));
    }

    /// A folder of before the configuration had another tells nothing.
    #[test]
    fn that_there_is_no_lease_tells_only_where_leases_are_kept() {
        let home = tempfile::tempdir().unwrap();
        let [address, new]: [IpAddr; 2] = ["10.1.0.2", "10.1.0.3"].map(|it| it.parse().unwrap());
        let holder = Holder { network: "net1".into(), ..Holder::unknown() };
        let given_away = |network| {
            let newcomer = Newcomer { network, container_id: "new", address: new };
            is_given_away(home.path(), &holder, address, newcomer)
        };
        let folders = ["net1", "net2"].map(|it| home.path().join(it));
        assert!(!given_away("net1"));
        for folder in &folders {
            fs::create_dir(folder).unwrap();
            assert!(!given_away("net1"));
            fs::write(folder.join("10.1.0.3"), "another\r\neth0").unwrap();
            assert!(!given_away("net1") && !given_away("net2"));
        }
        for folder in &folders {
            fs::write(folder.join("10.1.0.3"), "new\r\neth0").unwrap();
        }
        assert!(given_away("net1") && !given_away("net2"));
    }
}
