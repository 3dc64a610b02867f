//! Keeps the kernel and the runtime's folder as the cluster says.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use netlink::{KeptRoute, Link, Request, Socket};
use runner::{Error as RunError, Runner};
use serde_json::Value;

use super::conflist::{Main, Spec};
use super::constants::PROTOCOL;
use super::plan::{self, Changes, Seen};
use super::{ConfDir, Defect, Error, Member, Members, Report, accept, forwarding};
use crate::dataplane::{self, Programs, Ran};
use crate::iptables::Family;

/// Nobody may have told of a change of the rules.
const RULES_PAUSE: Duration = Duration::from_mins(1);
/// The same of the tables that iptables had before nf_tables, of which nobody tells.
const OLD_RULES_PAUSE: Duration = Duration::from_secs(5);
/// After the rules could not be read or written.
const RULES_RETRY: Duration = Duration::from_secs(5);

/// How the network shall be.
#[derive(Debug, Clone)]
pub struct Options {
    /// The name of the node.
    pub node: String,
    /// The runtime's folder, and our file there.
    pub conf_dir: ConfDir,
    /// How pods are joined to the node.
    pub main: Main,
    /// The plugins that are chained between that and the policy.
    pub chained: Vec<Value>,
    /// The MTU of pods, where it shall not be that of the uplink.
    pub mtu: Option<u32>,
}

/// Keeps the network of one node. It works in the network namespace of the calling thread.
#[derive(Debug)]
pub struct Keeper<R> {
    options: Options,
    programs: Programs<R>,
    /// The routes that were left in place.
    routes: BTreeSet<KeptRoute>,
    /// When the rules are compared again.
    rules_due: Option<Instant>,
    /// The ranges that they were last written for.
    ruled: Vec<IpNetwork>,
    /// Whether rules and forwarding were in place once.
    has_rules: bool,
    forwarded: bool,
    /// The list that was left in place.
    list: Option<String>,
}

impl<R: Runner> Keeper<R> {
    /// Of a node of which nothing is known yet.
    pub const fn new(options: Options, programs: Programs<R>) -> Self {
        Self {
            options,
            programs,
            routes: BTreeSet::new(),
            rules_due: None,
            ruled: Vec::new(),
            has_rules: false,
            forwarded: false,
            list: None,
        }
    }

    /// The rules may have been changed by others.
    pub const fn suspect_rules(&mut self) {
        self.rules_due = None;
    }

    /// The programs that ran since this was last asked.
    pub(super) fn take_ran(&mut self) -> Ran {
        self.programs.take_ran()
    }

    /// Makes all as it shall be, of a cluster of these nodes. All is tried, whatever becomes of the
    /// rest, but for the runtime's list: it is written only once the rest is there, and
    /// `has_policy` says that policies are in force. Blocks for as long as the programs take.
    pub fn reconcile(&mut self, members: &Members, has_policy: bool, now: Instant) -> Report {
        let Some(own) = members.get(&self.options.node) else {
            return Report::of(Error::NoNode(self.options.node.clone()));
        };
        if own.pod_ranges.is_empty() {
            return Report::of(Error::NoRanges(own.name.clone()));
        }
        let looked = Socket::open().and_then(|mut socket| Ok((Seen::look(&mut socket)?, socket)));
        let (seen, mut socket) = match looked {
            Ok(looked) => looked,
            Err(error) => return Report::of(error.into()),
        };
        let mut report = Report::default();
        let done = self.keep_routes(own, members, &seen, &mut socket, &mut report);
        report.note(done);
        let uplinks = plan::uplinks(own, &seen);
        // Whoever turns it on has to know the uplinks.
        if uplinks.is_ok() || self.options.mtu.is_some() {
            let links = uplinks.as_deref().unwrap_or_default();
            let done = self.keep_forwarding(own, &seen, links, &mut socket);
            report.repairs.forwarding = report.note(done);
        }
        let done = self.keep_rules(own, now);
        report.repairs.rules = report.note(done);
        let mtu = self.mtu(own, uplinks);
        self.keep_list(own, mtu, has_policy, &mut report);
        report
    }

    fn keep_routes(
        &mut self,
        own: &Member,
        members: &Members,
        seen: &Seen,
        socket: &mut Socket,
        report: &mut Report,
    ) -> Result<(), Error> {
        let plan = plan::plan(own, members, seen);
        report.defects = plan.defects;
        let Changes { add, delete } = plan::changes(&plan.routes, &seen.kept);
        let lost = add.iter().filter(|it| self.routes.contains(*it)).count();
        let requests = add.iter().map(|it| Request::add_kept_route(it, PROTOCOL).or_exists());
        let stale = delete.iter().map(|it| Request::delete_kept_route(it, PROTOCOL).or_gone());
        let requests: Vec<_> = requests.chain(stale).collect();
        if !requests.is_empty() {
            // What is there now is not known; the next look tells.
            self.routes.clear();
            socket.execute(&requests)?;
        }
        report.routes = plan.routes.len();
        report.changed_routes = (add.len(), delete.len());
        report.repairs.routes = u64::try_from(lost).unwrap_or(u64::MAX);
        self.routes = plan.routes;
        Ok(())
    }

    /// Whether forwarding was turned off by somebody.
    fn keep_forwarding(
        &mut self,
        own: &Member,
        seen: &Seen,
        uplinks: &[&Link],
        socket: &mut Socket,
    ) -> Result<bool, Error> {
        let families = Family::ALL.map(|family| has(own, family));
        let was_off = forwarding::ensure(socket, families, seen, uplinks)?;
        let was_on = std::mem::replace(&mut self.forwarded, true);
        Ok(was_off && was_on)
    }

    /// Whether the rules were changed by somebody.
    fn keep_rules(&mut self, own: &Member, now: Instant) -> Result<bool, Error> {
        let is_early = self.rules_due.is_some_and(|due| now < due);
        if is_early && self.ruled == own.pod_ranges {
            return Ok(false);
        }
        self.rules_due = now.checked_add(RULES_RETRY);
        let (place, mut was_other) = (accept::own_chain(), false);
        for family in Family::ALL {
            let done = if has(own, family) {
                let chain = accept::chain(&own.pod_ranges, family);
                place.install(&mut self.programs, family, &chain)
            } else {
                place.remove(&mut self.programs, family)
            };
            was_other |= match done {
                // As in an image without them, where nobody has closed anything by them either.
                Err(dataplane::Error::Run(RunError::NotFound(_)))
                    if !accept::needs_programs(family)? =>
                {
                    false
                }
                done => done?,
            };
        }
        self.rules_due =
            now.checked_add(if accept::has_old_tables() { OLD_RULES_PAUSE } else { RULES_PAUSE });
        // Of other ranges than before they could not be.
        let was_ruled = std::mem::replace(&mut self.ruled, own.pod_ranges.clone());
        let was_there = std::mem::replace(&mut self.has_rules, true);
        Ok(was_other && was_there && was_ruled == own.pod_ranges)
    }

    fn mtu(&self, own: &Member, uplinks: Result<Vec<&Link>, Error>) -> Result<Option<u32>, Error> {
        match self.options.mtu {
            Some(mtu) => Ok(Some(mtu)),
            None => plan::mtu(own, &uplinks?),
        }
    }

    fn keep_list(
        &mut self,
        own: &Member,
        mtu: Result<Option<u32>, Error>,
        has_policy: bool,
        report: &mut Report,
    ) {
        let mtu = match mtu {
            Ok(mtu) => mtu,
            Err(problem) => return report.problems.push(problem),
        };
        if !report.problems.is_empty() {
            return;
        }
        if !has_policy {
            // Once it was there, it is not taken away while policies fail.
            report.awaits_policy = self.list.is_none();
            return;
        }
        let Options { conf_dir, main, chained, .. } = &self.options;
        let ranges = &own.pod_ranges;
        let text = Spec { ranges, mtu, main: *main, chained }.text();
        match conf_dir.read() {
            Err(problem) => report.problems.push(problem),
            Ok(held) if held.as_deref() == Some(text.as_bytes()) => self.list = Some(text),
            Ok(_) => match self.put_list(&text) {
                Err(problem) => report.problems.push(problem),
                Ok(()) => {
                    report.repairs.file = self.list.as_ref() == Some(&text);
                    report.written = Some(text.clone());
                    self.list = Some(text);
                }
            },
        }
        let rivals = self.options.conf_dir.rivals().into_iter();
        report.defects.extend(rivals.map(|file| Defect::Shadowed { file }));
    }

    fn put_list(&self, text: &str) -> Result<(), Error> {
        let conf_dir = &self.options.conf_dir;
        // Later it is ours that somebody changed.
        if self.list.is_none() {
            conf_dir.save_others()?;
        }
        conf_dir.write(text)
    }
}

/// The addresses of the links with a default route: what is known of the node's own without its
/// object.
///
/// # Errors
/// [`netlink::Error`].
pub fn uplink_addresses() -> Result<Vec<IpAddr>, netlink::Error> {
    let seen = Seen::look(&mut Socket::open()?)?;
    let uplinks: Vec<u32> = seen.default_links(|_| true).map(|it| it.index).collect();
    let addresses = seen.addresses.iter().filter(|it| uplinks.contains(&it.link));
    Ok(addresses.map(|it| it.cidr.ip()).collect())
}

impl Seen {
    /// What the kernel holds in the namespace of the socket.
    pub(super) fn look(socket: &mut Socket) -> Result<Self, netlink::Error> {
        let mut routes = socket.routes(true)?;
        routes.extend(socket.routes(false)?);
        let mut kept = socket.kept_routes(true, PROTOCOL)?;
        kept.extend(socket.kept_routes(false, PROTOCOL)?);
        Ok(Self { links: socket.links()?, addresses: socket.all_addresses()?, routes, kept })
    }
}

fn has(own: &Member, family: Family) -> bool {
    own.pod_ranges.iter().any(|range| family.has_network(range))
}
