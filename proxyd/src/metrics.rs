//! What `/metrics` shows. What kube-proxy has too is named as there.

use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::dataplane::Written;

/// Counters and gauges.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Services that are served.
    pub services: Gauge,
    /// Writes that failed.
    pub failures: Counter,
    sync_seconds: Histogram,
    event_to_kernel_seconds: Histogram,
    transactions: Counter,
    elements_added: Counter,
    elements_deleted: Counter,
    flows_cut: Counter,
    defective_manifests: Gauge,
}

impl Metrics {
    /// All of them, at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("kubeproxy");
        let histogram = || Histogram::new(exponential_buckets(0.0001, 2.0, 20));
        let metrics = Self {
            services: Gauge::default(),
            failures: Counter::default(),
            sync_seconds: histogram(),
            event_to_kernel_seconds: histogram(),
            transactions: Counter::default(),
            elements_added: Counter::default(),
            elements_deleted: Counter::default(),
            flows_cut: Counter::default(),
            defective_manifests: Gauge::default(),
            registry: Registry::default(),
        };
        let all = &mut registry;
        all.register("services", "Services that are served", metrics.services.clone());
        let help = "Writes to the kernel that failed";
        all.register("sync_proxy_rules_nftables_sync_failures", help, metrics.failures.clone());
        let help = "How long a write to the kernel took";
        all.register("sync_proxy_rules_duration_seconds", help, metrics.sync_seconds.clone());
        let help = "From the arrival of the first event of a write to its end";
        all.register("event_to_kernel_seconds", help, metrics.event_to_kernel_seconds.clone());
        let help = "Transactions of nf_tables";
        all.register("transactions", help, metrics.transactions.clone());
        let help = "Elements that came to sets and maps";
        all.register("elements_added", help, metrics.elements_added.clone());
        let help = "Elements that went from sets and maps";
        all.register("elements_deleted", help, metrics.elements_deleted.clone());
        let help = "Flows that were cut, as they led where no service leads any more";
        all.register("conntrack_reconciler_deleted_entries", help, metrics.flows_cut.clone());
        let help = "Files of the folder with something wrong in them, that count as they were when they were last good";
        all.register("defective_manifests", help, metrics.defective_manifests.clone());
        Self { registry, ..metrics }
    }

    pub(crate) fn wrote(&self, written: &Written, delay: Option<Duration>, took: Duration) {
        let count = |of: usize| u64::try_from(of).unwrap_or(u64::MAX);
        self.sync_seconds.observe(took.as_secs_f64());
        delay.iter().for_each(|it| self.event_to_kernel_seconds.observe(it.as_secs_f64()));
        self.transactions.inc_by(count(written.transactions));
        self.elements_added.inc_by(count(written.added));
        self.elements_deleted.inc_by(count(written.deleted));
        self.flows_cut.inc_by(count(written.flows_cut));
    }

    /// So many files are wrong somewhere.
    pub fn found_defective_manifests(&self, count: usize) {
        self.defective_manifests.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// As text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a text does not fail.
        _ = encode(&mut text, &self.registry);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
