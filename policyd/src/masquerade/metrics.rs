//! What `/metrics` shows of masquerading.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Report;

/// Gauges and counters of masquerading; where it is off, all stay at zero.
#[derive(Debug, Default)]
pub struct Metrics {
    config_rejected: Gauge,
    writes: Counter,
    failures: Counter,
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "masquerade_config_rejected",
            "1 while the configuration of masquerading cannot be used, and the last good one holds",
            self.config_rejected.clone(),
        );
        registry.register(
            "masquerade_writes",
            "Times that the rules of masquerading were not as configured, and were written",
            self.writes.clone(),
        );
        registry.register(
            "masquerade_failures",
            "Times that the rules of masquerading could not be read or written",
            self.failures.clone(),
        );
    }

    /// Takes in what was done.
    pub fn see(&self, report: &Report) {
        if let Some(reload) = &report.reload {
            self.config_rejected.set(i64::from(reload.is_err()));
        }
        match report.kernel {
            Some(Ok(true)) => _ = self.writes.inc(),
            Some(Err(_)) => _ = self.failures.inc(),
            Some(Ok(false)) | None => {}
        }
    }
}
