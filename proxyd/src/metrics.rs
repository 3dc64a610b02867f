//! What `/metrics` shows. What kube-proxy has too is named as there.

use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};

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
        let all = &mut registry;
        let services = registered(all, "services", "Services that are served", Gauge::default());
        let help = "Writes to the kernel that failed";
        let name = "sync_proxy_rules_nftables_sync_failures";
        let failures = registered(all, name, help, Counter::default());
        let help = "How long a write to the kernel took";
        let name = "sync_proxy_rules_duration_seconds";
        let sync_seconds = registered(all, name, help, histogram());
        let help = "From the arrival of the first event of a write to its end";
        let event_to_kernel_seconds = registered(all, "event_to_kernel_seconds", help, histogram());
        let help = "Transactions of nf_tables";
        let transactions = registered(all, "transactions", help, Counter::default());
        let help = "Elements that came to sets and maps";
        let elements_added = registered(all, "elements_added", help, Counter::default());
        let help = "Elements that went from sets and maps";
        let elements_deleted = registered(all, "elements_deleted", help, Counter::default());
        let help = "Flows that were cut, as they led where no service leads any more";
        let name = "conntrack_reconciler_deleted_entries";
        let flows_cut = registered(all, name, help, Counter::default());
        let help = "Files of the folder with something wrong in them, that count as they were when they were last good";
        let defective_manifests = registered(all, "defective_manifests", help, Gauge::default());
        Self {
            registry,
            services,
            failures,
            sync_seconds,
            event_to_kernel_seconds,
            transactions,
            elements_added,
            elements_deleted,
            flows_cut,
            defective_manifests,
        }
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

fn registered<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// Of seconds, from a tenth of a millisecond to a minute.
fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 20))
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
