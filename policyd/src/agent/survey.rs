//! What the node's links say of pods: which bridges have to show their frames to iptables, which
//! ports frames that no rule sees have to be kept from, and where pods are that nobody told of.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use netlink::{
    BridgeFiltering, Error, Event, HostInterfaces, Link, LinkChange, LinkChanges, Socket,
};

use crate::frames;
use crate::ingress::Sources;
use crate::plan::{Endpoint, HostInterface};
use cluster::Listener;

/// The links are not looked at more often, however often they change.
const LEAST_PAUSE: Duration = Duration::from_millis(200);
/// As long as some pod has not been found: the kernel learns where it is when it speaks.
const SEARCH_PAUSE: Duration = Duration::from_secs(5);
/// Addresses of bridges are not told of.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// Without a survey so long, all is written as if no link had anybody behind it.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// The kinds of links that one pod alone is behind; by any other come packets of many.
const KINDS_OF_PODS: [&str; 2] = ["veth", "tun"];

/// What is looked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    /// Bridges that endpoints are ports of.
    pub(super) bridges: BTreeSet<String>,
    /// Those ports.
    pub(super) ports: BTreeSet<String>,
    /// The interfaces of all endpoints, with their addresses.
    pub(super) sources: Sources,
    /// A bridge with an address in one of these is one of pods too.
    pub(super) gated: Vec<IpNetwork>,
    /// Addresses of endpoints whose interface nobody told, with where they were found before.
    pub(super) sought: BTreeMap<IpAddr, Option<HostInterface>>,
    /// Interfaces that attachments tell of: whoever claims by his packets to be behind one of them is
    /// not believed.
    pub(super) told: BTreeSet<String>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Survey {
    /// Where sought addresses are.
    pub(super) found: BTreeMap<IpAddr, HostInterface>,
    /// Whether the bridges show their frames to the rules.
    pub(super) bridges: Result<(), Error>,
    /// Whether other frames are kept from their ports; the netlink port from which nf_tables was changed.
    pub(super) kept_out: Result<Option<u32>, Error>,
}

/// The bridges that these endpoints are ports of.
pub(super) fn bridges<'a>(endpoints: impl Iterator<Item = &'a Endpoint>) -> BTreeSet<String> {
    endpoints.filter_map(|it| it.interface.as_ref()?.bridge.clone()).collect()
}

/// Has these bridges, those that there are, pass what goes from port to port to iptables.
///
/// # Errors
/// [`Error`], of which [`Error::NoBridgeNetfilter`] says that the kernel cannot.
pub(super) fn filter_bridges(bridges: &BTreeSet<String>) -> Result<(), Error> {
    if bridges.is_empty() {
        return Ok(());
    }
    let mut socket = Socket::open()?;
    for name in bridges {
        if let Some(bridge) = socket.link_by_name(name)? {
            filter_bridge(&mut socket, &bridge)?;
        }
    }
    Ok(())
}

fn filter_bridge(socket: &mut Socket, bridge: &Link) -> Result<(), Error> {
    let done = socket.set_bridge_filtering(bridge, BridgeFiltering::BOTH);
    // It may have gone meanwhile.
    if done.is_err() && socket.link_by_index(bridge.index)?.is_none() { Ok(()) } else { done }
}

/// Finds where the sought addresses are, and sees to the bridges and their ports.
///
/// # Errors
/// [`Error`]: nothing is known then, and nothing done.
pub(super) fn survey(wanted: &Wanted) -> Result<Survey, Error> {
    let mut socket = Socket::open()?;
    let links = socket.links()?;
    let in_gated = |address: IpAddr| wanted.gated.iter().any(|range| range.contains(address));
    let addresses = socket.addresses(0, "all links")?.into_iter();
    let gating: BTreeSet<u32> =
        addresses.filter(|it| in_gated(it.cidr.ip())).map(|it| it.link).collect();
    let is_bridge = |link: &&Link| link.kind == "bridge";
    let is_wanted =
        |link: &&Link| wanted.bridges.contains(&link.name) || gating.contains(&link.index);
    let found = if wanted.sought.is_empty() {
        BTreeMap::new()
    } else {
        find(wanted, &links, &socket.host_interfaces()?)
    };
    let mut wanted_bridges = links.iter().filter(is_bridge).filter(is_wanted);
    let bridges = wanted_bridges.try_for_each(|bridge| filter_bridge(&mut socket, bridge));
    let kept_out = keep_frames_out(wanted, &found, &links);
    Ok(Survey { found, bridges, kept_out })
}

/// Whether there is no link of this name, and no attachment that tells of it. What was listed before
/// is not enough: it may have come since.
///
/// # Errors
/// [`Error`].
pub(super) fn is_gone(name: &str, wanted: &Wanted) -> Result<bool, Error> {
    Ok(!wanted.told.contains(name) && Socket::open()?.link_by_name(name)?.is_none())
}

/// A port that nobody is known to have may yet be of somebody who is sought: it is let go with its
/// link, or once all are found.
fn keep_frames_out(
    wanted: &Wanted,
    found: &BTreeMap<IpAddr, HostInterface>,
    links: &[Link],
) -> Result<Option<u32>, Error> {
    let of_found = found.values().filter_map(HostInterface::port).map(str::to_owned);
    let ports = wanted.ports.iter().cloned().chain(of_found).collect();
    let is_whole = wanted.sought.keys().all(|it| found.contains_key(it));
    frames::keep_out(&ports, |name| is_whole || links.iter().all(|it| it.name != name))
}

/// Where the sought addresses are. Once found, an address stays where it is for as long as its link
/// does, since the kernel's neighbours and forwarding databases follow whatever is sent.
fn find(
    wanted: &Wanted,
    links: &[Link],
    heard: &HostInterfaces,
) -> BTreeMap<IpAddr, HostInterface> {
    let name = |index: u32| links.iter().find(|it| it.index == index).map(|it| it.name.clone());
    let now: BTreeMap<&str, &Link> = links.iter().map(|it| (it.name.as_str(), it)).collect();
    let is_there = |it: &HostInterface| {
        let link = now.get(it.name.as_str());
        link.is_some_and(|link| link.controller.and_then(name) == it.bridge)
    };
    let hear = |address: IpAddr| {
        let found = heard.of(address)?;
        let is_of_pod =
            now.get(found.name.as_str()).is_some_and(|it| KINDS_OF_PODS.contains(&&*it.kind));
        let bridge = found.bridge.and_then(name);
        let is_told = wanted.told.contains(&found.name);
        (is_of_pod && !is_told).then_some(HostInterface { name: found.name, bridge })
    };
    let found = wanted.sought.iter().filter_map(|(address, before)| {
        let before = before.clone().filter(is_there);
        Some((*address, before.or_else(|| hear(*address))?))
    });
    found.collect()
}

/// Says when it is time for a survey.
#[derive(Debug)]
pub(super) struct Links {
    changes: Option<Listener<LinkChanges>>,
    has_changed: bool,
    /// When the first survey began, and the last.
    first: Option<Instant>,
    last: Option<Instant>,
    /// Whether one has found what there is.
    has_found: bool,
    /// Where the last survey found endpoints.
    pub(super) found: BTreeMap<IpAddr, HostInterface>,
    /// Whether there are endpoints that it did not find.
    is_searching: bool,
}

impl Links {
    pub(super) fn new() -> Self {
        let changes = Listener::new("changes of links", LinkChanges::open());
        let changes = changes
            .inspect_err(|error| {
                tracing::warn!(
                    error = crate::chain(error),
                    "changes of links are not told by the kernel; they are looked for once a minute"
                );
            })
            .ok();
        Self {
            changes,
            has_changed: true,
            first: None,
            last: None,
            has_found: false,
            found: BTreeMap::new(),
            is_searching: false,
        }
    }

    /// Waits until a link came, changed or went.
    pub(super) async fn changed(&mut self) -> Vec<Event<LinkChange>> {
        let Some(changes) = &mut self.changes else { return pending().await };
        changes.next(LinkChanges::receive).await
    }

    /// Whether a survey has told what there is: until then what the kernel holds may name interfaces that only the links
    /// can tell, and stays; or none has done so for long.
    pub(super) fn is_surveyed(&self) -> bool {
        self.has_found || self.first.is_some_and(|it| it.elapsed() > LONGEST_WAIT)
    }

    /// A survey has found this.
    pub(super) fn find(&mut self, found: BTreeMap<IpAddr, HostInterface>, is_searching: bool) {
        (self.has_found, self.found, self.is_searching) = (true, found, is_searching);
    }

    /// An endpoint came that nobody has looked for, or a survey has failed.
    pub(super) const fn look_again(&mut self) {
        self.has_changed = true;
    }

    pub(super) fn hear(&mut self, events: &[Event<LinkChange>]) {
        self.has_changed |= !events.is_empty();
    }

    /// When the next survey is due.
    pub(super) fn due(&self) -> Instant {
        let Some(last) = self.last else { return Instant::now() };
        last + match (self.has_changed, self.is_searching) {
            (true, _) => LEAST_PAUSE,
            (false, true) => SEARCH_PAUSE,
            (false, false) => LONGEST_PAUSE,
        }
    }

    /// A survey begins.
    pub(super) fn begin(&mut self) {
        let now = Instant::now();
        self.first.get_or_insert(now);
        (self.has_changed, self.last) = (false, Some(now));
    }
}
