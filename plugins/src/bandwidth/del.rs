//! DEL and GC. What is set on the host's end of a link goes with it.

use cni::Call;
use netlink::{Request, Socket};

use super::redirect::Remains;
use super::{IFB, Ifb};
use crate::error::Error;
use crate::owner::Stale;

/// Deletes the attachment's IFB, and what leads there. Neither the configuration nor the namespace is needed for that.
pub(super) fn del(call: &Call) -> Result<(), Error> {
    let ifb = Ifb::of(call);
    let mut host = Socket::open()?;
    let mut remains = Remains::default();
    let errors = [remains.remove_of(&ifb).err(), delete_ifb(call, &mut host, &ifb).err()];
    Error::of_teardown(errors.into_iter().flatten().collect())
}

fn delete_ifb(call: &Call, host: &mut Socket, ifb: &Ifb) -> Result<(), Error> {
    match ifb.find(call, host)? {
        Some(ifb) => Ok(host.execute(&[Request::delete_link(&ifb.name).or_gone()])?),
        None => Ok(()),
    }
}

/// Deletes the IFBs of the network that belong to no valid attachment, and what leads there. Those of the
/// reference plugin do not tell whose they are.
pub(super) fn gc(call: &Call) -> Result<(), Error> {
    let stale = Stale::new(&call.conf.name, &call.conf.valid_attachments()?);
    let mut host = Socket::open()?;
    let mut remains = Remains::default();
    let mut errors: Vec<_> = remains.collect_garbage(&stale).err().into_iter().collect();
    let links = host.links()?.into_iter().filter(|it| it.kind == IFB);
    for link in links.filter(|it| stale.has(it.alias.as_deref())) {
        let deleted = host.execute(&[Request::delete_link(&link.name).or_gone()]);
        errors.extend(deleted.err().map(Error::from));
    }
    Error::of_teardown(errors)
}
