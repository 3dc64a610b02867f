//! What `/metrics` shows. What kube-proxy has too is named as there.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};

use crate::counters::Counters;
use crate::dataplane::Written;
use crate::index::{Arrivals, WithoutLocal};

/// As many ports of services have a counter of their own, unless told otherwise.
pub const MOST_COUNTERS: usize = 10_000;

type Labels = [(&'static str, String); 1];
type Seconds = Gauge<f64, AtomicU64>;

/// Counters and gauges.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Services that are served.
    pub services: Gauge,
    /// Writes that failed.
    pub failures: Counter,
    /// Connections to services.
    pub counters: Arc<Counters>,
    sync_seconds: Histogram,
    full_sync_seconds: Histogram,
    partial_sync_seconds: Histogram,
    last_sync: Seconds,
    last_queued: Seconds,
    programming_seconds: Histogram,
    reconciling_seconds: Histogram,
    service_changes: Counter,
    pending_service_changes: Gauge,
    endpoint_changes: Counter,
    pending_endpoint_changes: Gauge,
    without_local: Family<Labels, Gauge>,
    healthz: Family<Labels, Counter>,
    livez: Family<Labels, Counter>,
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
        Self::counting(MOST_COUNTERS)
    }

    /// The same, where as many ports of services have a counter of their own.
    #[must_use]
    pub fn counting(most: usize) -> Self {
        let mut registry = Registry::default();
        let counters = Arc::new(Counters::at_most(most));
        let own = registry.sub_registry_with_prefix("podwire_proxy");
        own.register_collector(Box::new(Arc::clone(&counters)));
        let services = registered(own, "services", "Services that are served", Gauge::default());
        let help = "From the arrival of the first event of a write to its end";
        let event_to_kernel_seconds = registered(own, "event_to_kernel_seconds", help, histogram());
        let help = "Transactions of nf_tables";
        let transactions = registered(own, "transactions", help, Counter::default());
        let help = "Elements that came to sets and maps";
        let elements_added = registered(own, "elements_added", help, Counter::default());
        let help = "Elements that went from sets and maps";
        let elements_deleted = registered(own, "elements_deleted", help, Counter::default());
        let help = "Files of the folder with something wrong in them, that count as they were when they were last good";
        let defective_manifests = registered(own, "defective_manifests", help, Gauge::default());
        let all = registry.sub_registry_with_prefix("kubeproxy");
        let help = "Writes to the kernel that failed";
        let name = "sync_proxy_rules_nftables_sync_failures";
        let failures = registered(all, name, help, Counter::default());
        let help = "Flows that were cut, as they led where no service leads any more";
        let name = "conntrack_reconciler_deleted_entries";
        let flows_cut = registered(all, name, help, Counter::default());
        let help = "How long it took to look for such flows";
        let name = "conntrack_reconciler_sync_duration_seconds";
        let reconciling_seconds = registered(all, name, help, histogram());
        let Syncs { whole, full, partial, last, queued } = Syncs::registered(all);
        let help = "From what led to an EndpointSlice's change, as that tells, to the kernel";
        let name = "network_programming_duration_seconds";
        let programming_seconds = registered(all, name, help, programming_histogram());
        let [service_changes, endpoint_changes] = ["service", "endpoint"].map(|of| {
            let (name, help) = (changes_name(of), format!("Changes of {of}s that were taken in"));
            registered(all, &name, &help, Counter::default())
        });
        let [pending_service_changes, pending_endpoint_changes] =
            ["service", "endpoint"].map(|of| {
                let name = format!("{}_pending", changes_name(of));
                let help = format!("Changes of {of}s that are not on their way to the kernel yet");
                registered(all, &name, &help, Gauge::default())
            });
        let help = "Ports of Services with endpoints, none of them on this node, where the policy is Local";
        let name = "sync_proxy_rules_no_local_endpoints_total";
        let without_local = registered(all, name, help, Family::default());
        let [healthz, livez] = ["healthz", "livez"].map(|path| {
            let help = format!("Answers at /{path}, by their code");
            registered(all, &format!("proxy_{path}"), &help, Family::default())
        });
        Self {
            registry,
            services,
            failures,
            counters,
            sync_seconds: whole,
            full_sync_seconds: full,
            partial_sync_seconds: partial,
            last_sync: last,
            last_queued: queued,
            programming_seconds,
            reconciling_seconds,
            service_changes,
            pending_service_changes,
            endpoint_changes,
            pending_endpoint_changes,
            without_local,
            healthz,
            livez,
            event_to_kernel_seconds,
            transactions,
            elements_added,
            elements_deleted,
            flows_cut,
            defective_manifests,
        }
    }

    /// Something is to be written: this has come, and is not on its way to the kernel yet.
    pub(crate) fn queued(&self, arrivals: &Arrivals) {
        self.last_queued.set(now());
        self.pending(arrivals);
    }

    /// These changes are on their way to the kernel.
    pub(crate) fn took_in(&self, arrivals: &Arrivals) {
        self.service_changes.inc_by(count(arrivals.services));
        self.endpoint_changes.inc_by(count(arrivals.slices));
        self.pending(&Arrivals::default());
    }

    fn pending(&self, arrivals: &Arrivals) {
        set(&self.pending_service_changes, arrivals.services);
        set(&self.pending_endpoint_changes, arrivals.slices);
    }

    /// What that time led to is in the kernel.
    pub(crate) fn programmed(&self, triggered: Timestamp) {
        // Of another machine's clock.
        let seconds = Timestamp::now().duration_since(triggered).as_secs_f64().max(0.0);
        self.programming_seconds.observe(seconds);
    }

    /// So many ports have no endpoint here.
    pub(crate) fn know_without_local(&self, without: WithoutLocal) {
        for (policy, number) in [("internal", without.internal), ("external", without.external)] {
            let labels = [("traffic_policy", policy.to_owned())];
            set(&self.without_local.get_or_create(&labels), number);
        }
    }

    /// Somebody was answered at `/healthz` or `/livez` with this code.
    pub fn answered(&self, path: &str, code: u16) {
        let answers = match path {
            "/healthz" => &self.healthz,
            "/livez" => &self.livez,
            _ => return,
        };
        answers.get_or_create(&[("code", code.to_string())]).inc();
    }

    /// Something was written, which took so long: all of it, or what has changed.
    pub(crate) fn wrote(&self, written: &Written, took: Duration, is_full: bool) {
        let took = took.as_secs_f64();
        self.sync_seconds.observe(took);
        let of_kind = if is_full { &self.full_sync_seconds } else { &self.partial_sync_seconds };
        of_kind.observe(took);
        self.last_sync.set(now());
        self.transactions.inc_by(count(written.transactions));
        self.elements_added.inc_by(count(written.added));
        self.elements_deleted.inc_by(count(written.deleted));
    }

    /// So long after the first event it was in the kernel.
    pub(crate) fn waited(&self, delay: Duration) {
        self.event_to_kernel_seconds.observe(delay.as_secs_f64());
    }

    /// Flows were looked at for so long, and so many of them were cut.
    pub(crate) fn reconciled(&self, took: Duration, cut: usize) {
        self.flows_cut.inc_by(count(cut));
        self.reconciling_seconds.observe(took.as_secs_f64());
    }

    /// So many files are wrong somewhere.
    pub fn found_defective_manifests(&self, count: usize) {
        set(&self.defective_manifests, count);
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

/// How long writes take, and when they were.
struct Syncs {
    whole: Histogram,
    full: Histogram,
    partial: Histogram,
    last: Seconds,
    queued: Seconds,
}

impl Syncs {
    fn registered(all: &mut Registry) -> Self {
        let mut took = |kind: &str, help: &str| {
            registered(all, &format!("sync_{kind}proxy_rules_duration_seconds"), help, histogram())
        };
        let whole = took("", "How long a write to the kernel took");
        let full = took("full_", "The same where the kernel was read and compared");
        let partial = took("partial_", "The same where only what has changed was written");
        let mut time = |of: &str, help: &str| {
            let name = format!("sync_proxy_rules_last_{of}timestamp_seconds");
            registered(all, &name, help, Seconds::default())
        };
        let last = time("", "When a write to the kernel last ended that did not fail");
        let queued = time("queued_", "When something last came that is to be written");
        Self { whole, full, partial, last, queued }
    }
}

fn changes_name(of: &str) -> String {
    format!("sync_proxy_rules_{of}_changes")
}

fn registered<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn set(gauge: &Gauge, number: usize) {
    gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
}

/// Seconds since 1970.
fn now() -> f64 {
    Timestamp::now().as_duration().as_secs_f64()
}

/// Of seconds, from a tenth of a millisecond to a minute.
fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 20))
}

/// That of kube-proxy, so that the two are compared: to a minute by seconds, to two by five, to five by thirty.
fn programming_histogram() -> Histogram {
    let first = [0.25, 0.5].into_iter();
    let minutes = (1..60).chain((60..120).step_by(5)).chain((120..=300).step_by(30));
    Histogram::new(first.chain(minutes.map(f64::from)))
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
