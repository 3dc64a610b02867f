//! Whether the kernel of this node holds what a verdict says: all that the traffic between two ends
//! can pass is compared, rules by the hashes that they carry and sets by their members, whichever way the
//! kernel was told. Pure but for what reads a [`Kernel`], which changes nothing.

mod chains;
mod frames;
mod iptables;
mod kernel;
mod members;
mod nftables;
mod report;
mod sources;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use attachment::CLOSED_TABLE;

pub use kernel::Kernel;
pub use report::{Difference, Live};

use self::kernel::Rules;
use self::walk::Way;
use crate::World;
use crate::attachment::Attachment;
use crate::dataplane::Kind;
use crate::explain::Pair;
use crate::index::Index;
use crate::ingress;
use crate::iptables::{Family, Settings};
use crate::nftables::Layer;
use crate::plan::{Endpoint, HostInterface, Lookup, Plan};
use crate::source::{Change, Event};

/// What of tables of nf_tables is needed for a comparison: of each table, of which sets the elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed(BTreeMap<Layer, BTreeSet<String>>);

/// What the kernel of a node should hold.
#[derive(Debug)]
pub struct Expected {
    index: Index,
    plan: Plan,
    settings: Settings,
}

impl Expected {
    /// What policyd makes of these objects on a node, of which it has this index without objects yet,
    /// with these settings and the attachments that the CNI plugin has told of.
    #[must_use]
    pub fn new(
        world: World,
        mut index: Index,
        attachments: impl IntoIterator<Item = Attachment>,
        settings: Settings,
    ) -> Self {
        index.apply(Event::Namespaces(Change::Listed(world.namespaces)));
        index.apply(Event::Policies(Change::Listed(world.policies)));
        index.apply(Event::Pods(Change::Listed(world.pods)));
        attachments.into_iter().for_each(|it| index.attach(it));
        // What is not taken is not in the plan.
        index.take_changes();
        Self { plan: index.plan(), index, settings }
    }

    /// Gives pods of these objects the addresses too that the CNI plugin has told of: an object may tell
    /// none, or not yet.
    pub fn tell_addresses(&self, world: &mut World) {
        for (uid, addresses) in self.index.told_addresses() {
            let pods = world.pods.iter_mut().filter(|pod| pod.uid == uid);
            pods.for_each(|pod| pod.addresses.extend(addresses));
        }
    }

    /// What is to be read of nf_tables to compare what the traffic between these addresses can pass, on a node
    /// whose kernel has these families.
    #[must_use]
    pub fn needed(&self, pairs: &[Pair], families: &[Family]) -> Needed {
        Needed(nftables::needed(self, pairs, families))
    }

    /// Compares what the traffic between these addresses, and what answers it, can pass.
    #[must_use]
    pub fn compare(&self, pairs: &[Pair], kernel: &Kernel) -> Live {
        let mut live = Live::new(self.index.node(), self.notes(pairs, kernel));
        self.compare_rules(pairs, kernel, &mut live);
        let ends = ends(pairs);
        let interfaces = self.interfaces(&ends);
        let ports = interfaces.iter().filter_map(|it| it.port()).collect();
        frames::compare(&ports, &kernel.frames, &mut live);
        let is_of_ends =
            |it: &&Endpoint| it.interface.as_ref().is_some_and(|it| interfaces.contains(it));
        let bound = ingress::sources(self.plan.endpoints.values().filter(is_of_ends));
        sources::compare(bound, &kernel.links, kernel.sources.as_ref(), &mut live);
        let bridges: BTreeSet<_> = interfaces.iter().filter_map(|it| it.bridge.as_ref()).collect();
        let blind = match kernel.kind() {
            Kind::Iptables => "iptables".to_owned(),
            Kind::Nftables => format!("table {}", Layer::Routed.table()),
        };
        for bridge in bridges.into_iter().filter(|it| kernel.unseen_bridges.contains(*it)) {
            live.differ(
                &format!("bridge {bridge}"),
                format!("nf_call_iptables and nf_call_ip6tables are not both on: {blind} does not see what goes from port to port"),
            );
        }
        for interface in interfaces.iter().filter(|it| kernel.closed.contains(&it.name)) {
            live.differ(
                &format!("nf_tables: table netdev {CLOSED_TABLE}"),
                format!("interface {} is closed: the CNI plugin did so without policyd, and no packet passes until it has opened it", interface.name),
            );
        }
        if !live.differences.is_empty() {
            live.notes.push("this takes policyd to run with the options given here, and to have written what the objects say: what it is just writing differs, too".to_owned());
        }
        live
    }

    fn compare_rules(&self, pairs: &[Pair], kernel: &Kernel, live: &mut Live) {
        for family in Family::ALL {
            let pairs: Vec<_> = pairs.iter().filter(|it| family.has(&it.source)).collect();
            match &kernel.rules {
                _ if pairs.is_empty() => {}
                _ if !kernel.families.contains(&family) => {
                    live.differ("the kernel", "it has no tables of this family");
                }
                Rules::Iptables(held) => iptables::compare(self, family, &pairs, held, live),
                // Its tables have both.
                Rules::Nftables(_) => {}
            }
        }
        if let Rules::Nftables(held) = &kernel.rules {
            nftables::compare(self, pairs, &kernel.families, held, live);
        }
    }

    /// The ways that packets take between these addresses, there and back.
    fn ways<'a>(&'a self, pairs: impl IntoIterator<Item = &'a Pair>) -> Vec<Way<'a>> {
        let both = pairs.into_iter().map(|it| {
            [(it.source, it.destination), (it.destination, it.source)].map(
                |(source, destination)| {
                    let [interface, to] = [source, destination].map(|it| self.interface(it));
                    Way { source, destination, interface, to }
                },
            )
        });
        both.flatten().collect()
    }

    /// The interfaces of those of these addresses that are pods' of this node, as far as they were told.
    fn interfaces(&self, ends: &BTreeSet<IpAddr>) -> BTreeSet<&HostInterface> {
        ends.iter().filter_map(|it| self.interface(*it)).collect()
    }

    /// That of the pod of this node with the address, if it was told.
    fn interface(&self, address: IpAddr) -> Option<&HostInterface> {
        self.index.endpoint_at(address)?.interface.as_ref()
    }

    /// Whether policyd may have found interfaces by itself: what the kernel's neighbours told it
    /// then may be gone.
    fn is_unsure(&self) -> bool {
        self.plan.endpoints.values().any(|it| it.interface.is_none())
    }

    /// Where it may have: what the endpoints may be as well, as far as all packets pass other chains then.
    fn guesses(&self) -> Vec<BTreeMap<String, Endpoint>> {
        let kinds: &[bool] = if self.is_unsure() { &[false, true] } else { &[] };
        kinds.iter().map(|it| self.with_ports(*it)).collect()
    }

    /// The endpoints, as if those of which nobody told were ports of a bridge, with or without those
    /// that are isolated: the chains that every packet passes are others then.
    fn with_ports(&self, isolated: bool) -> BTreeMap<String, Endpoint> {
        let mut endpoints = self.plan.endpoints.clone();
        let port = HostInterface { name: String::new(), bridge: Some(String::new()) };
        let untold = endpoints.values_mut().filter(|it| it.interface.is_none());
        for endpoint in untold.filter(|it| isolated || !it.is_isolated()) {
            endpoint.interface = Some(port.clone());
        }
        endpoints
    }

    fn notes(&self, pairs: &[Pair], kernel: &Kernel) -> Vec<String> {
        let mut notes = Vec::new();
        let ends = ends(pairs);
        let is_other = |it: &&IpAddr| {
            self.index.endpoint_at(**it).is_none() && !kernel.own_addresses.contains(*it)
        };
        for end in ends.iter().filter(is_other) {
            if self.settings.gated.iter().any(|range| range.contains(*end)) {
                notes.push(format!("{end} is in the gated ranges of node {}, and none of its pods has it: the gate drops what comes from it or goes to it, whatever policies allow", self.index.node()));
                continue;
            }
            let name = self.index.name_of(*end).map(|it| format!(" ({it})")).unwrap_or_default();
            notes.push(format!("{end}{name} is none of node {}'s pods: whatever its own node holds is not seen here", self.index.node()));
        }
        let unknown = self.plan.endpoints.values().filter(|it| it.interface.is_none()).count();
        if unknown > 0 {
            let what = match kernel.kind() {
                Kind::Iptables => iptables::by_interface(),
                Kind::Nftables => nftables::by_interface(),
            };
            notes.push(format!("the CNI plugin has not told the interfaces of {unknown} pods, and which ones policyd found for them is not known here: {what} were not compared"));
        }
        notes
    }
}

fn ends<'a>(pairs: impl IntoIterator<Item = &'a Pair>) -> BTreeSet<IpAddr> {
    pairs.into_iter().flat_map(|it| [it.source, it.destination]).collect()
}
