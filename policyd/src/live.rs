//! Whether the kernel of this node holds what a verdict says: all that the traffic between two ends
//! can pass is compared, rules by the hashes that they carry and sets by their members. Pure but for
//! [`Kernel::read`], which changes nothing.

mod chains;
mod frames;
mod hooked;
mod kernel;
mod report;
mod sets;
mod sources;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use attachment::CLOSED_TABLE;
use ruleset::iptables::Chain;

pub use kernel::Kernel;
pub use report::{Difference, Live};

use self::walk::{Reached, Way};
use crate::World;
use crate::attachment::Attachment;
use crate::explain::Pair;
use crate::index::Index;
use crate::ingress;
use crate::iptables::{
    Family, MANGLE, RAW, Settings, dispatch, endpoint_chains, hooks, policy_chain,
};
use crate::plan::{Endpoint, HostInterface, Lookup, Plan};
use crate::source::{Change, Event};

/// Chains that depend on the interfaces of pods begin so.
const BY_INTERFACE: [&str; 3] = ["PODWIRE-LINK", "PODWIRE-PORT", "PODWIRE-OUT"];

/// Chains by their names, each with its table.
type Chains = BTreeMap<String, (&'static str, Chain)>;

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

    /// Compares what the traffic between these addresses, and what answers it, can pass.
    #[must_use]
    pub fn compare(&self, pairs: &[Pair], kernel: &Kernel) -> Live {
        let mut live = Live::new(self.index.node(), self.notes(pairs, kernel));
        for family in Family::ALL {
            let pairs: Vec<_> = pairs.iter().filter(|it| family.has(&it.source)).collect();
            if !pairs.is_empty() {
                self.compare_family(family, &pairs, kernel, &mut live);
            }
        }
        let ends = pairs.iter().flat_map(|it| [it.source, it.destination]);
        let interfaces: BTreeSet<_> = ends.filter_map(|it| self.interface(it)).collect();
        let ports = interfaces.iter().filter_map(|it| it.port()).collect();
        frames::compare(&ports, &kernel.frames, &mut live);
        let is_of_ends =
            |it: &&Endpoint| it.interface.as_ref().is_some_and(|it| interfaces.contains(it));
        let bound = ingress::sources(self.plan.endpoints.values().filter(is_of_ends));
        sources::compare(&bound, kernel.sources.as_ref(), &mut live);
        let bridges: BTreeSet<_> = interfaces.iter().filter_map(|it| it.bridge.as_ref()).collect();
        for bridge in bridges.into_iter().filter(|it| kernel.unseen_bridges.contains(*it)) {
            live.differ(
                &format!("bridge {bridge}"),
                "nf_call_iptables and nf_call_ip6tables are not both on: iptables does not see what goes from port to port",
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

    fn compare_family(&self, family: Family, pairs: &[&Pair], kernel: &Kernel, live: &mut Live) {
        let Some(tables) = kernel.tables(family) else {
            return live.differ("the kernel", "it has no tables of this family");
        };
        if tables.are_without_ours() {
            let problem =
                "no chain of policyd's is there: it has not written yet, or all was removed";
            return live.differ(&tables.program, problem);
        }
        hooked::compare(&hooks(&self.settings), tables, live);
        let chains = self.chains(family, &self.plan.endpoints);
        let is_unsure = self.is_unsure();
        let kinds: &[bool] = if is_unsure { &[false, true] } else { &[] };
        let others = kinds.iter().map(|it| self.chains(family, &self.with_ports(*it)));
        let others: Vec<_> = others.collect();
        let mut reached = Reached::default();
        for pair in pairs {
            let (there, back) =
                (self.way(pair.source, pair.destination), self.way(pair.destination, pair.source));
            reached.follow(&chains, &self.settings, &there);
            reached.follow(&chains, &self.settings, &back);
        }
        for name in reached.chains.iter().filter(|it| !is_unsure || !is_by_interface(it)) {
            let wanted: Vec<_> =
                [&chains].into_iter().chain(&others).filter_map(|it| it.get(name)).collect();
            let Some((table, _)) = wanted.first() else { continue };
            let chains: Vec<_> = wanted.iter().map(|(_, chain)| chain).collect();
            chains::compare(table, &chains, tables, live);
        }
        let ends: BTreeSet<IpAddr> =
            pairs.iter().flat_map(|it| [it.source, it.destination]).collect();
        let wanted = sets::wanted(family, &self.plan, &ends);
        for (name, user) in
            reached.sets.iter().filter(|(_, user)| !is_unsure || !is_by_interface(&user.chain))
        {
            sets::compare(name, user, wanted.get(name), kernel, live, &|address| {
                self.index.name_of(address)
            });
        }
    }

    /// All chains of the node, whoever they are for, each with its table.
    fn chains(&self, family: Family, endpoints: &BTreeMap<String, Endpoint>) -> Chains {
        let mut chains = dispatch(family, endpoints.iter(), &self.settings);
        let of_endpoints =
            endpoints.iter().flat_map(|(key, it)| endpoint_chains(family, key, it, &self.settings));
        chains.extend(of_endpoints);
        chains.extend(self.plan.chains.iter().map(|(key, it)| policy_chain(family, key, it)));
        let sources = crate::iptables::sources(family, endpoints.iter());
        let sources = sources.into_iter().map(|it| (RAW, it));
        let all = sources.chain(chains.into_iter().map(|it| (MANGLE, it)));
        all.map(|(table, it)| (it.name.clone(), (table, it))).collect()
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

    fn way(&self, source: IpAddr, destination: IpAddr) -> Way<'_> {
        let [interface, to] = [source, destination].map(|it| self.interface(it));
        Way { source, destination, interface, to }
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

    fn notes(&self, pairs: &[Pair], kernel: &Kernel) -> Vec<String> {
        let mut notes = Vec::new();
        let ends: BTreeSet<_> = pairs.iter().flat_map(|it| [it.source, it.destination]).collect();
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
            notes.push(format!("the CNI plugin has not told the interfaces of {unknown} pods, and which ones policyd found for them is not known here: chains {} were not compared", BY_INTERFACE.map(|it| format!("{it}*")).join(", ")));
        }
        notes
    }
}

fn is_by_interface(chain: &str) -> bool {
    BY_INTERFACE
        .iter()
        .any(|root| chain.strip_prefix(root).is_some_and(|it| it.is_empty() || it.starts_with('-')))
}
