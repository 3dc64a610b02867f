//! DEL and GC. What is set on the host's end of a link goes with it.

use cni::Call;
use netlink::{Request, Socket};

use super::redirect::Remains;
use super::{IFB, Ifb};
use crate::error::Error;
use crate::masquerade::Mark;

/// Deletes the attachment's IFB, and what leads there. Neither the configuration nor the namespace is needed for that.
pub(super) fn del(call: &Call) -> Result<(), Error> {
    let ifb = Ifb::of(call);
    let mut host = Socket::open()?;
    let mut remains = Remains::open()?;
    let errors = [remains.remove_of(&ifb).err(), delete_ifb(&mut host, &ifb).err()];
    Error::of_teardown(errors.into_iter().flatten().collect())
}

fn delete_ifb(host: &mut Socket, ifb: &Ifb) -> Result<(), Error> {
    match ifb.find(host)? {
        Some(ifb) => Ok(host.execute(&[Request::delete_link(&ifb.name).or_gone()])?),
        None => Ok(()),
    }
}

/// Deletes the IFBs of the network that belong to no valid attachment, and what leads there. Those of the
/// reference plugin do not tell whose they are.
pub(super) fn gc(call: &Call) -> Result<(), Error> {
    let valid = call.conf.valid_attachments()?;
    let network = &call.conf.name;
    let valid: Vec<_> =
        valid.iter().map(|it| Mark::new(network, &it.container_id, &it.ifname)).collect();
    let mut host = Socket::open()?;
    let mut remains = Remains::open()?;
    let mut errors: Vec<_> = remains.collect_garbage(network, &valid).err().into_iter().collect();
    let is_stale = |alias: &str| {
        Mark::is_of_network(alias, network) && !valid.iter().any(|it| it.is_in(alias))
    };
    let links = host.links()?.into_iter().filter(|it| it.kind == IFB);
    for stale in links.filter(|it| it.alias.as_deref().is_some_and(is_stale)) {
        let deleted = host.execute(&[Request::delete_link(&stale.name).or_gone()]);
        errors.extend(deleted.err().map(Error::from));
    }
    Error::of_teardown(errors)
}
