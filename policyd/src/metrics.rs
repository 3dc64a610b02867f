//! What `/metrics` shows.

use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::counters::Counters;
use crate::dataplane::Counts;
use crate::{masquerade, node_network};

/// Counters and gauges of the agent.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    chains: Gauge,
    rules: Gauge,
    sets: Gauge,
    members: Gauge,
    rejected_policies: Gauge,
    defective_pods: Gauge,
    defective_manifests: Gauge,
    apply_seconds: Histogram,
    program_seconds: Histogram,
    event_to_kernel_seconds: Histogram,
    pub(crate) attachment_to_kernel_seconds: Histogram,
    pub(crate) address_to_kernel_seconds: Histogram,
    /// Writes that failed.
    pub apply_failures: Counter,
    /// Looks at what the kernel holds that failed.
    pub look_failures: Counter,
    /// Times that rules or sets were found changed by somebody else, and repaired.
    pub drift_repairs: Counter,
    /// Flows that were cut as policies no longer allow them.
    pub flows_cut: Counter,
    /// Packets that the kernel dropped or let through.
    pub(crate) counters: Counters,
    /// What is done to masquerade.
    pub masquerade: masquerade::Metrics,
    /// What is done for the node's network.
    pub(crate) node_network: node_network::Metrics,
}

impl Metrics {
    /// All of them, at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("policyd");
        let all = &mut registry;
        let chains = gauge(all, "chains", "Chains in the kernel, of both families");
        let rules = gauge(all, "rules", "Rules in the kernel, of both families");
        let sets = gauge(all, "sets", "Sets in the kernel, of both families");
        let members = gauge(all, "set_members", "Members of all sets in the kernel");
        let rejected_policies = gauge(
            all,
            "rejected_policies",
            "NetworkPolicies with something wrong in them, which allows nothing",
        );
        let help = "Pods of this node with an address or a port that is none";
        let defective_pods = gauge(all, "defective_pods", help);
        let help = "Files of the folder with something wrong in them, that count as they were when they were last good";
        let defective_manifests = gauge(all, "defective_manifests", help);
        let help = "How long a write to the kernel took";
        let apply_seconds = histogram(all, "apply_seconds", help);
        let help = "How much of that the programs of iptables and ipset took";
        let program_seconds = histogram(all, "program_seconds", help);
        let help = "From the arrival of the first event of a write to its end";
        let event_to_kernel_seconds = histogram(all, "event_to_kernel_seconds", help);
        let help = "From the CNI plugin's call to the container's rules in the kernel: so long the gate kept it closed";
        let attachment_to_kernel_seconds = histogram(all, "attachment_to_kernel_seconds", help);
        let help =
            "From the arrival of a pod's address to the rules and sets that name it in the kernel";
        let address_to_kernel_seconds = histogram(all, "address_to_kernel_seconds", help);
        let apply_failures = counter(all, "apply_failures", "Writes to the kernel that failed");
        let help = "Looks at what the kernel holds that failed";
        let look_failures = counter(all, "look_failures", help);
        let help = "Times that somebody else had changed rules or sets, and they were repaired";
        let drift_repairs = counter(all, "drift_repairs", help);
        let help = "Established flows that were cut as policies no longer allow them";
        let flows_cut = counter(all, "flows_cut", help);
        let counters = Counters::default();
        counters.register(all);
        let masquerade = masquerade::Metrics::default();
        masquerade.register(all);
        let node_network = node_network::Metrics::default();
        node_network.register(all);
        Self {
            registry,
            chains,
            rules,
            sets,
            members,
            rejected_policies,
            defective_pods,
            defective_manifests,
            apply_seconds,
            program_seconds,
            event_to_kernel_seconds,
            attachment_to_kernel_seconds,
            address_to_kernel_seconds,
            apply_failures,
            look_failures,
            drift_repairs,
            flows_cut,
            counters,
            masquerade,
            node_network,
        }
    }

    /// All of them in the OpenMetrics text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        _ = encode(&mut text, &self.registry);
        text
    }

    pub(crate) fn found_problems(&self, policies: usize, pods: usize) {
        set(&self.rejected_policies, policies);
        set(&self.defective_pods, pods);
    }

    /// As many files of a folder of manifests have something wrong in them.
    pub fn found_defective_manifests(&self, files: usize) {
        set(&self.defective_manifests, files);
    }

    pub(crate) fn committed(
        &self,
        counts: &Counts,
        in_programs: Duration,
        took: Duration,
        waited: Option<Duration>,
    ) {
        set(&self.chains, counts.chains);
        set(&self.rules, counts.rules);
        set(&self.sets, counts.sets);
        set(&self.members, counts.members);
        self.apply_seconds.observe(took.as_secs_f64());
        self.program_seconds.observe(in_programs.as_secs_f64());
        if let Some(waited) = waited {
            self.event_to_kernel_seconds.observe(waited.as_secs_f64());
        }
    }
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

/// Of seconds, from a millisecond to half a minute.
fn histogram(registry: &mut Registry, name: &str, help: &str) -> Histogram {
    let histogram = Histogram::new(exponential_buckets(0.001, 2.0, 16));
    registry.register(name, help, histogram.clone());
    histogram
}

fn set(gauge: &Gauge, count: usize) {
    gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
