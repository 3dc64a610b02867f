//! New connections to services, as counters that only grow.
//!
//! Elements of the maps of pools count the first packets of connections that they are found for. One that is made anew
//! begins at 0: so what is added here is what an element has counted since it was last read. What it counted between
//! that and its end is lost: too little is shown then, never too much.

mod reader;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

pub use reader::{Increase, Reader, Reading};

use crate::model::{NamespacedName, Protocol};
use crate::plan::Plan;

/// Counters of ports of services that somebody has connected to.
#[derive(Debug)]
pub struct Counters {
    /// As many ports have one of their own.
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Default)]
struct State {
    /// By the service, its port and protocol.
    of_ports: BTreeMap<Arc<NamespacedName>, BTreeMap<(u16, Protocol), u64>>,
    /// How many ports that are.
    count: usize,
    /// Of all other ports together.
    others: u64,
}

impl Counters {
    /// As many ports have a counter of their own, and all others one together.
    #[must_use]
    pub fn at_most(most: usize) -> Self {
        Self { most, state: Mutex::default() }
    }

    /// Somebody has connected so often to a port of a service.
    pub(crate) fn add(&self, service: &NamespacedName, port: (u16, Protocol), more: u64) {
        let mut state = self.lock();
        let known = state.of_ports.get_mut(service).and_then(|it| it.get_mut(&port));
        if let Some(counter) = known {
            *counter += more;
        } else if state.count < self.most {
            state.count += 1;
            state.of_ports.entry(Arc::new(service.clone())).or_default().insert(port, more);
        } else {
            state.others += more;
        }
    }

    /// Services are otherwise than before, or are gone: the counters of ports that they no longer have go.
    pub(crate) fn know(&self, changes: &BTreeMap<NamespacedName, Option<Arc<Plan>>>) {
        let mut state = self.lock();
        let State { of_ports, count, .. } = &mut *state;
        for (name, plan) in changes {
            let Some(ports) = of_ports.get_mut(name) else { continue };
            let before = ports.len();
            ports.retain(|(port, protocol), _| {
                let mut frontends = plan.iter().flat_map(|it| &it.frontends);
                frontends.any(|(at, it)| it.port == *port && at.protocol == *protocol)
            });
            *count -= before - ports.len();
            if ports.is_empty() {
                of_ports.remove(name);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked left counters that are too low at worst.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Counters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // Who writes to the kernel has to count as well, and is not to wait while numbers become text.
        let state = self.lock().clone();
        let help = "New connections to a Service's port that were led to an endpoint";
        let mut family =
            encoder.encode_descriptor("service_connections", help, None, MetricType::Counter)?;
        for (service, ports) in &state.of_ports {
            let NamespacedName { namespace, name } = &**service;
            for ((port, protocol), connections) in ports {
                let labels = [
                    ("namespace", namespace.as_str()),
                    ("service", name.as_str()),
                    ("port", &port.to_string()),
                    ("protocol", &protocol.to_string()),
                ];
                ConstCounter::new(*connections).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "The same of all ports that have no counter of their own, as there are too many";
        let name = "other_service_connections";
        let others = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(state.others).encode(others)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::plan::{At, Frontend, Origin, Way};

    fn name(name: &str) -> NamespacedName {
        NamespacedName { namespace: "n".to_owned(), name: name.to_owned() }
    }

    /// The lines that tell numbers.
    fn shown(counters: &Arc<Counters>) -> Vec<String> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(counters)));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text.lines().filter(|it| !it.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn ports_have_a_counter_of_their_own_while_there_is_room_and_while_they_are_there() {
        let counters = Arc::new(Counters::at_most(2));
        let tcp = |port| (port, Protocol::Tcp);
        for (service, port, more) in
            [("a", 80, 2), ("b", 80, 1), ("c", 80, 5), ("a", 80, 1), ("c", 81, 1)]
        {
            counters.add(&name(service), tcp(port), more);
        }
        let line = |service: &str, port: u16, count: u64| {
            format!(
                "service_connections_total{{namespace=\"n\",service=\"{service}\",port=\"{port}\",protocol=\"TCP\"}} {count}"
            )
        };
        let others = |count: u64| format!("other_service_connections_total {count}");
        assert_eq!(shown(&counters), [line("a", 80, 3), line("b", 80, 1), others(6)]);
        // One has gone, and one has other ports.
        let at = At { address: "10.0.0.1".parse().unwrap(), protocol: Protocol::Tcp, port: 30_080 };
        let (origin, way) = (Origin::NodePort, Way::Reject);
        let frontend = Frontend { origin, port: 80, sources: None, way };
        let frontends = [(at, frontend)].into_iter().collect();
        let plan = Arc::new(Plan { frontends, ..Plan::default() });
        counters.know(&[(name("a"), Some(plan)), (name("b"), None)].into());
        counters.add(&name("c"), tcp(81), 4);
        assert_eq!(shown(&counters), [line("a", 80, 3), line("c", 81, 4), others(6)]);
        counters.know(&[(name("a"), Some(Arc::default()))].into());
        assert_eq!(shown(&counters), [line("c", 81, 4), others(6)]);
    }
}
