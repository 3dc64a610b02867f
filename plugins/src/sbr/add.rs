//! ADD.

use cni::{AddResult, Call};
use netlink::{HeldRoute, Socket};

use super::conf::Conf;
use super::plan::{Held, plan};
use super::{del, lock, sources};
use crate::error::Error;
use crate::rollback::Rollback;
use crate::{prev_result, veth};

/// Gives each address of the interface its own way out; the result is that of the plugins before.
pub(super) fn add(call: &Call) -> Result<AddResult, Error> {
    let conf = Conf::parse(call)?;
    let result = prev_result::required(call)?;
    // A version that cannot express the result is an error before anything is touched.
    result.to_json(call.conf.version)?;
    let sources = sources(call, &result, &conf)?;
    let netns = veth::open_netns(call)?;
    let _lock = lock(&netns)?;
    let _entered = netns.enter()?;
    let mut socket = Socket::open()?;
    let link = socket.link_by_name(&call.ifname)?.ok_or_else(|| {
        Error::Config(format!("prevResult: the container has no interface {:?}", call.ifname))
    })?;
    let held = Held { rules: socket.rules()?, routes: all_routes(&mut socket)? };
    let plan = plan(&conf, link.index, &sources, &held)?;

    let hosts: Vec<_> = sources.iter().map(|source| source.cidr.ip()).collect();
    let mut rollback = Rollback::default();
    rollback.push("delete rules and routes", || {
        del::tidy(&mut Socket::open()?, &hosts, conf.table, Some(link.index))
    });
    rollback.push("put the main table back", || {
        Ok(Socket::open()?.execute(&plan.restoration(&call.ifname))?)
    });
    socket.execute(&plan.additions(&call.ifname))?;
    socket.execute(&plan.deletions())?;
    rollback.commit();
    Ok(result)
}

/// The routes of both families.
pub(super) fn all_routes(socket: &mut Socket) -> Result<Vec<HeldRoute>, Error> {
    let mut routes = socket.held_routes(true)?;
    routes.extend(socket.held_routes(false)?);
    Ok(routes)
}
