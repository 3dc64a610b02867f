//! CHECK.

use cni::Call;
use netlink::{HeldRoute, Rule, Socket};

use super::add::all_routes;
use super::conf::Conf;
use super::{Source, sources};
use crate::error::Error;
use crate::{prev_result, veth};

/// Whether each address still has its rule, and its way out. Other routes may have been changed by a
/// plugin later in the list.
pub(super) fn check(call: &Call) -> Result<(), Error> {
    let conf = Conf::parse(call)?;
    let result = prev_result::required(call)?;
    let sources = sources(call, &result, &conf)?;
    let netns = veth::open_netns(call)?;
    let _entered = netns.enter()?;
    let mut socket = Socket::open()?;
    let link = socket.link_by_name(&call.ifname)?.map(|link| link.index).ok_or_else(|| {
        Error::Changed(format!("container interface {:?} is not there", call.ifname))
    })?;
    let rules = socket.rules()?;
    let routes = if conf.table.is_none() { all_routes(&mut socket)? } else { Vec::new() };
    for source in &sources {
        let table = table_of(&rules, source, conf.table)?;
        if conf.table.is_none() && source.gateway.is_some() {
            has_way_out(&routes, source, table, link)?;
        }
    }
    Ok(())
}

/// The table that a source's rule leads to.
fn table_of(rules: &[Rule], source: &Source, table: Option<u32>) -> Result<u32, Error> {
    let is_it = |rule: &&Rule| {
        rule.source == Some(source.host())
            && !rule.has_more
            && table.is_none_or(|table| table == rule.table)
    };
    rules.iter().find(is_it).map(|rule| rule.table).ok_or_else(|| {
        let to = table.map(|table| format!(" to table {table}")).unwrap_or_default();
        Error::Changed(format!("address {} has no rule{to} any more", source.cidr))
    })
}

/// The gateway may be another: that of the default route which the main table had.
fn has_way_out(routes: &[HeldRoute], source: &Source, table: u32, link: u32) -> Result<(), Error> {
    let is_it = |HeldRoute { route, is_unicast, .. }: &HeldRoute| {
        *is_unicast
            && route.dst.prefix() == 0
            && route.dst.is_ipv4() == source.cidr.is_ipv4()
            && (route.table, route.link) == (table, link)
            && route.gateway.is_some()
    };
    if routes.iter().any(is_it) {
        return Ok(());
    }
    Err(Error::Changed(format!(
        "table {table} of address {} has no default route any more",
        source.cidr
    )))
}
