//! ADD.

use cni::{AddResult, Call};
use netlink::{Link, OtherEnd, Request, Socket};
use nix::errno::Errno;

use super::conf::{Conf, Limit, Subnets};
use super::{Ifb, host_end, redirect};
use crate::error::Error;
use crate::prev_result;
use crate::rollback::Rollback;
use crate::veth::host_entry;

/// Limits the container; the result is that of the plugins before, with the IFB if there is one.
pub(super) fn add(call: &Call) -> Result<AddResult, Error> {
    let conf = Conf::parse(call)?;
    let mut result = prev_result::required(call)?;
    if conf.is_empty() {
        return Ok(result);
    }
    let mut host = Socket::open()?;
    let link = host_end(call, &mut host)?;
    let mut rollback = Rollback::default();
    if let Some(limit) = conf.ingress {
        limit_sent(&mut host, &link, limit, (conf.subnets.as_ref(), OtherEnd::Source))?;
        let (index, name) = (link.index, link.name.clone());
        rollback.push("no longer limit what the container is sent", move || {
            Ok(Socket::open()?.execute(&[Request::delete_limit(index, &name).or_gone()])?)
        });
    }
    if let Some(limit) = conf.egress {
        let of_call = Ifb::of(call);
        let ifb = create_ifb(call, &mut host, &of_call, link.mtu)?;
        let name = ifb.name.clone();
        rollback.push("delete the IFB", move || {
            Ok(Socket::open()?.execute(&[Request::delete_link(&name).or_gone()])?)
        });
        limit_sent(&mut host, &ifb, limit, (conf.subnets.as_ref(), OtherEnd::Destination))?;
        redirect::set_up(&mut host, &link, &ifb, &of_call.owner)?;
        result.interfaces.push(host_entry(&ifb));
    }
    rollback.commit();
    Ok(result)
}

fn limit_sent(
    host: &mut Socket,
    link: &Link,
    limit: Limit,
    (subnets, other_end): (Option<&Subnets>, OtherEnd),
) -> Result<(), Error> {
    let (index, name) = (link.index, &link.name);
    let requests = match subnets {
        Some(subnets) => Request::add_network_limit(index, name, &subnets.limit(limit, other_end)),
        None => vec![Request::add_token_bucket(index, name, &limit.token_bucket())],
    };
    let Err(error) = host.execute(&requests) else { return Ok(()) };
    if error.errno() == Some(Errno::EEXIST) {
        let why = "is there a second bandwidth plugin in the list?";
        return Err(Error::Conflict(format!("{name:?} has a queueing discipline already ({why})")));
    }
    // Of several requests those that were not refused have been carried out. There may be nothing to delete;
    // the first refusal tells more than that.
    if requests.len() > 1 {
        let _ = host.execute(&[Request::delete_limit(index, name)]);
    }
    Err(error.into())
}

/// Creates the IFB, in the place of one that an attachment left whose DEL never came.
fn create_ifb(call: &Call, host: &mut Socket, ifb: &Ifb, mtu: u32) -> Result<Link, Error> {
    if let Some(stale) = ifb.find(call, host)? {
        host.execute(&[Request::delete_link(&stale.name).or_gone()])?;
    }
    let create = |host: &mut Socket, name: &str| -> Result<Link, netlink::Error> {
        let create = Request::create_ifb(name, mtu);
        let link = host.create_link(create, name)?;
        host.execute(&[Request::set_alias(link.index, name, &ifb.owner.comment)])?;
        Ok(link)
    };
    match create(host, &ifb.name) {
        // Another interface of the container has it.
        Err(error) if error.errno() == Some(Errno::EEXIST) => Ok(create(host, &ifb.own_name)?),
        created => Ok(created?),
    }
}
