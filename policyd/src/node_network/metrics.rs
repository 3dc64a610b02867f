//! What `/metrics` shows of the node's network.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Report;

/// Gauges and counters; where policyd does not keep the node's network, all stay at zero.
#[derive(Debug, Default)]
pub struct Metrics {
    in_place: Gauge,
    routes: Gauge,
    unreachable: Gauge,
    rivals: Gauge,
    route_repairs: Counter,
    rule_repairs: Counter,
    forwarding_repairs: Counter,
    file_repairs: Counter,
    failures: Counter,
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let mut gauge = |name: &str, help: &str, gauge: &Gauge| {
            registry.register(format!("node_network_{name}"), help, gauge.clone());
        };
        gauge("in_place", "1 while the node's network is as it should be", &self.in_place);
        gauge(
            "routes",
            "Routes of ours: to other nodes' pods, and of the node's own ranges",
            &self.routes,
        );
        gauge(
            "unreachable_nodes",
            "Nodes to whose pods there is no route, or not ours",
            &self.unreachable,
        );
        gauge("rival_lists", "Lists that the runtime takes in the place of ours", &self.rivals);
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(format!("node_network_{name}"), help, counter.clone());
        };
        counter("route_repairs", "Routes that had gone, and were added again", &self.route_repairs);
        counter(
            "rule_repairs",
            "Times that the rules that accept were not as they should be, and were written",
            &self.rule_repairs,
        );
        counter(
            "forwarding_repairs",
            "Times that forwarding had been turned off, and was turned on",
            &self.forwarding_repairs,
        );
        counter(
            "file_repairs",
            "Times that the runtime's file had been changed, and was written",
            &self.file_repairs,
        );
        counter(
            "failures",
            "Looks at the network after which something was not in place",
            &self.failures,
        );
    }

    pub(super) fn see(&self, report: &Report) {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.in_place.set(i64::from(report.state().is_ok()));
        self.routes.set(count(report.routes));
        self.unreachable.set(count(report.unreachable_nodes()));
        self.rivals.set(count(report.rival_lists()));
        self.route_repairs.inc_by(report.repairs.routes);
        for (is_repaired, counter) in [
            (report.repairs.rules, &self.rule_repairs),
            (report.repairs.forwarding, &self.forwarding_repairs),
            (report.repairs.file, &self.file_repairs),
            (!report.problems.is_empty(), &self.failures),
        ] {
            counter.inc_by(is_repaired.into());
        }
    }
}
