//! DEL.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni::Call;
use netlink::{Request, Route, Rule, Socket};

use super::add::all_routes;
use super::conf::Conf;
use super::lock;
use crate::error::{Error, warn};
use crate::{prev_result, veth};

/// The kernel's own tables (`RT_TABLE_DEFAULT`, `RT_TABLE_MAIN`, `RT_TABLE_LOCAL`).
const OF_KERNEL: std::ops::RangeInclusive<u32> = 253..=255;

/// Deletes the rules of the interface's addresses, and the routes that ADD put into their tables. A
/// namespace that is gone took them along.
pub(super) fn del(call: &Call) -> Result<(), Error> {
    let conf = Conf::parse_leniently(call);
    let Some(netns) = veth::remaining_netns(call)? else { return Ok(()) };
    let _lock = lock(&netns)?;
    let _entered = netns.enter()?;
    let mut socket = Socket::open()?;
    let link = socket.link_by_name(&call.ifname)?.map(|link| link.index);
    let mut sources = of_result(call);
    if let Some(link) = link {
        let addresses = socket.addresses(link, &call.ifname)?;
        sources.extend(addresses.iter().map(|address| address.cidr.ip()));
    }
    tidy(&mut socket, &sources, conf.table, link)
}

/// The addresses that the interface had, should it have lost them: rules stay when addresses go.
fn of_result(call: &Call) -> Vec<IpAddr> {
    let result = call.conf.prev_result().unwrap_or_else(|error| {
        warn(&format!("the addresses that ADD gave are not known: {error}"));
        None
    });
    let result = result.unwrap_or_default();
    prev_result::ips_of(&result, &call.ifname).map(|ip| ip.address.ip()).collect()
}

/// Deletes the rules for these sources. Without a `table` of somebody else's, the interface's routes in the
/// tables that they lead to go as well.
pub(super) fn tidy(
    socket: &mut Socket,
    sources: &[IpAddr],
    table: Option<u32>,
    link: Option<u32>,
) -> Result<(), Error> {
    let is_ours = |rule: &Rule| {
        let is_host =
            |it: &ipnetwork::IpNetwork| it.prefix() == if it.is_ipv4() { 32 } else { 128 };
        let source = rule.source.filter(is_host).map(|source| source.ip());
        !rule.has_more
            && source.is_some_and(|source| sources.contains(&source))
            && table.is_none_or(|table| table == rule.table)
    };
    let rules: Vec<Rule> = socket.rules()?.into_iter().filter(is_ours).collect();
    let mut requests = Vec::new();
    if table.is_none() && !rules.is_empty() {
        let tables: BTreeSet<u32> = rules.iter().map(|rule| rule.table).collect();
        let in_them = |route: &Route| {
            Some(route.link) == link
                && tables.contains(&route.table)
                && !OF_KERNEL.contains(&route.table)
        };
        let routes = all_routes(socket)?.into_iter().filter(|it| in_them(&it.route));
        requests.extend(routes.map(|it| Request::delete_held_route(&it).or_gone()));
    }
    // The rules go last: by them a DEL that follows finds what is left of the routes.
    requests.extend(rules.iter().map(|rule| Request::delete_rule(rule).or_gone()));
    Ok(socket.execute(&requests)?)
}
