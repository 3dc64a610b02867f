//! What ADD adds and deletes, as values.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink::{HeldRoute, Request, Route, Rule};

use super::Source;
use super::conf::Conf;
use crate::error::Error;

/// The first table that is taken. Those from 253 on are the kernel's, and never free.
const FIRST_TABLE: u32 = 100;
/// The metric of the route that the kernel makes for an address of IPv6 (`IP6_RT_PRIO_ADDRCONF`).
const IPV6_NETWORK_METRIC: u32 = 256;

/// What the container has.
pub(super) struct Held {
    pub(super) rules: Vec<Rule>,
    pub(super) routes: Vec<HeldRoute>,
}

/// What to do, in two parts. The second takes away what the first has put elsewhere.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// One for each address.
    pub(super) rules: Vec<Rule>,
    /// Routes that are made: by replacing, as the container may have some of them.
    pub(super) made: Vec<Route>,
    /// Routes of the main table with the tables that they are put into as well.
    pub(super) copied: Vec<(HeldRoute, u32)>,
    /// Networks that the main table gets, with the address as the preferred source.
    pub(super) hints: Vec<Route>,
    /// Routes that the main table loses.
    pub(super) moved: Vec<HeldRoute>,
    /// All that the main table has of the interface before.
    pub(super) main: Vec<HeldRoute>,
}

impl Plan {
    /// The rules come first: by them DEL finds the tables of an ADD that was killed.
    pub(super) fn additions(&self, ifname: &str) -> Vec<Request> {
        let rules = self.rules.iter().map(Request::add_rule);
        let made = self.made.iter().map(|route| Request::replace_route(route, ifname));
        let copied = self.copied.iter().map(|(route, table)| Request::copy_route(route, *table));
        let hints = self.hints.iter().map(|route| Request::replace_route(route, ifname));
        rules.chain(made).chain(copied).chain(hints).collect()
    }

    pub(super) fn deletions(&self) -> Vec<Request> {
        self.moved.iter().map(|route| Request::delete_held_route(route).or_gone()).collect()
    }

    /// What puts the main table back, however far the others got.
    pub(super) fn restoration(&self, ifname: &str) -> Vec<Request> {
        let hints = self.hints.iter().map(|it| Request::delete_route(it, ifname).or_gone());
        let main = self.main.iter().map(|it| Request::copy_route(it, it.route.table));
        hints.chain(main).collect()
    }
}

/// Plans an ADD for the interface of index `link`.
pub(super) fn plan(conf: &Conf, link: u32, sources: &[Source], held: &Held) -> Result<Plan, Error> {
    refuse_repetition(conf, sources, held)?;
    if let Some(table) = conf.table {
        let rules = sources.iter().map(|source| Rule::of_source(source.host(), table)).collect();
        return Ok(Plan { rules, ..Plan::default() });
    }
    let is_ours = |it: &&HeldRoute| {
        it.is_unicast && it.route.table == Route::MAIN_TABLE && it.route.link == link
    };
    let main: Vec<HeldRoute> = held.routes.iter().filter(is_ours).cloned().collect();
    let mut used = used_tables(held);
    let mut plan = Plan::default();
    for source in sources {
        let table = (FIRST_TABLE..).find(|table| used.insert(*table)).unwrap_or(u32::MAX);
        plan.rules.push(Rule::of_source(source.host(), table));
        plan.made.extend(way_out(source, link, table));
        let has_own = conf.gateway(source.cidr.is_ipv4()).is_some();
        // A default route of the main table would take the place of the one that was asked for.
        let is_replaced = |route: &Route| has_own && route.dst.prefix() == 0;
        let copied =
            main.iter().filter(|it| is_about(&it.route, source) && !is_replaced(&it.route));
        plan.copied.extend(copied.map(|it| (it.clone(), table)));
        if conf.add_source_hints {
            plan.hints.extend(hint(source, link));
        }
    }
    let goes = |route: &Route| {
        !is_link_local(&route.dst) && (!conf.add_source_hints || route.gateway.is_some())
    };
    plan.moved = main.iter().filter(|it| goes(&it.route)).cloned().collect();
    plan.main = main;
    Ok(plan)
}

/// Refuses addresses that have such a rule already: the routes that a table would need have been moved.
fn refuse_repetition(conf: &Conf, sources: &[Source], held: &Held) -> Result<(), Error> {
    for source in sources {
        let is_there = |rule: &&Rule| {
            rule.source == Some(source.host())
                && !rule.has_more
                && conf.table.is_none_or(|table| table == rule.table)
        };
        if let Some(rule) = held.rules.iter().find(is_there) {
            return Err(Error::Conflict(format!(
                "address {} has a rule already, to table {} (was the container attached before?)",
                source.cidr, rule.table
            )));
        }
    }
    Ok(())
}

fn used_tables(held: &Held) -> BTreeSet<u32> {
    let of_rules = held.rules.iter().map(|rule| rule.table);
    of_rules.chain(held.routes.iter().map(|it| it.route.table)).collect()
}

fn way_out(source: &Source, link: u32, table: u32) -> Option<Route> {
    let everything = IpNetwork::new(unspecified(&source.cidr), 0).ok()?;
    let gateway = Some(source.gateway?);
    Some(Route { gateway, table, ..Route::new(everything, link) })
}

/// Whether a route is for what is sent from the address: by its preferred source or its gateway, or as
/// it has neither.
fn is_about(route: &Route, source: &Source) -> bool {
    let is_inside = |address: Option<IpAddr>| address.is_some_and(|it| source.cidr.contains(it));
    let is_general = route.source.is_none() && route.gateway.is_none();
    route.dst.is_ipv4() == source.cidr.is_ipv4()
        && (is_general || is_inside(route.source) || is_inside(route.gateway))
}

/// The address's network, with the address for what is sent there from none in particular.
fn hint(source: &Source, link: u32) -> Option<Route> {
    let is_ipv4 = source.cidr.is_ipv4();
    let is_alone = source.cidr.prefix() == if is_ipv4 { 32 } else { 128 };
    let route = Route { source: Some(source.cidr.ip()), ..Route::new(source.cidr, link) };
    let route = if is_ipv4 {
        Route { scope: Route::SCOPE_LINK, ..route }
    } else {
        Route { priority: IPV6_NETWORK_METRIC, ..route }
    };
    (!is_alone).then_some(route)
}

const fn unspecified(cidr: &IpNetwork) -> IpAddr {
    match cidr {
        IpNetwork::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpNetwork::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    }
}

/// Link-local addresses have no rule, so their network stays in the main table.
fn is_link_local(dst: &IpNetwork) -> bool {
    match dst {
        IpNetwork::V4(_) => false,
        IpNetwork::V6(cidr) => cidr.ip().is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests;
