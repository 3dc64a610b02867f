//! `spec.healthCheckNodePort`: load balancers ask there whether this node has endpoints of a service, and how many
//! (reference: kube-proxy's `pkg/proxy/healthcheck`): at the addresses that have node ports.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cluster::health::{self, Answer, Connections};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::Status;
use super::status::lock;
use crate::model::NamespacedName;
use crate::plan::Plan;

/// So many ports are served at most; the range of node ports has 2768 where nobody has made it longer.
const MOST_PORTS: usize = 4096;
/// So many load balancers are answered at once, at all ports together.
const MOST_CONNECTIONS: usize = 256;
/// After so long a port is tried again that another process had.
const PAUSE: Duration = Duration::from_secs(5);
/// How many endpoints of the service are ready here: by that load balancers may divide what comes.
const WEIGHT: &str = "x-load-balancing-endpoint-weight";

/// Where is listened: at an address, or at all.
type Place = Option<IpAddr>;

/// The ports of all services.
#[derive(Debug)]
pub(super) struct HealthChecks {
    status: Arc<Status>,
    connections: Connections,
    places: BTreeSet<Place>,
    /// Of each service its port, and how many ready endpoints the node has.
    planned: BTreeMap<NamespacedName, (u16, usize)>,
    served: BTreeMap<u16, Served>,
    /// Ports that could not be served, and services that want one that another has.
    told: BTreeSet<(u16, NamespacedName)>,
    next_try: Option<Instant>,
}

/// What is told at a port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Check {
    service: NamespacedName,
    endpoints: usize,
}

/// A port that is served until this is dropped.
#[derive(Debug)]
struct Served {
    check: Arc<Mutex<Check>>,
    servers: BTreeMap<Place, Server>,
}

impl Drop for Served {
    fn drop(&mut self) {
        // Who is still connected is told that there is nothing any more.
        lock(&self.check).endpoints = 0;
    }
}

/// A server of a port at a place, until it is dropped.
#[derive(Debug)]
struct Server(AbortHandle);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl HealthChecks {
    pub(super) fn new(status: Arc<Status>) -> Self {
        Self {
            status,
            connections: Connections::at_most(MOST_CONNECTIONS),
            places: BTreeSet::new(),
            planned: BTreeMap::new(),
            served: BTreeMap::new(),
            told: BTreeSet::new(),
            next_try: None,
        }
    }

    /// From `now` on is listened at these addresses, or, as wanted, at all.
    pub(super) fn listen_at(&mut self, addresses: &BTreeSet<IpAddr>, at_all: bool, now: Instant) {
        // Those of IPv6 that are of a link are none without it.
        let is_of_link = |it: &IpAddr| matches!(it, IpAddr::V6(it) if it.is_unicast_link_local());
        let addresses = addresses.iter().filter(|it| !is_of_link(it)).copied();
        let places = if at_all { [None].into() } else { addresses.map(Some).collect() };
        if places != self.places {
            self.places = places;
            self.next_try = Some(now);
        }
    }

    /// Takes in plans on their way to the kernel; `None`: there is no such service any more.
    pub(super) fn plan(&mut self, changes: &BTreeMap<NamespacedName, Option<Arc<Plan>>>) {
        for (name, plan) in changes {
            match plan.as_ref().and_then(|it| it.health_check) {
                Some(check) => _ = self.planned.insert(name.clone(), check),
                None => _ = self.planned.remove(name),
            }
        }
    }

    /// Tells what was planned, which the kernel has now: no load balancer may come earlier.
    pub(super) fn publish(&mut self, now: Instant) {
        let wanted = self.wanted();
        self.served.retain(|port, _| wanted.contains_key(port));
        self.told.retain(|(port, name)| {
            self.planned.get(name).is_some_and(|(planned, _)| planned == port)
        });
        self.next_try = None;
        for (port, check) in wanted {
            let name = check.service.clone();
            match self.serve(port, check) {
                Ok(()) => _ = self.told.remove(&(port, name)),
                Err(error) => {
                    self.next_try = now.checked_add(PAUSE);
                    if self.told.insert((port, name.clone())) {
                        tracing::warn!(%error, "cannot answer the health checks of service {name} at port {port} everywhere; it is tried again");
                    }
                }
            }
        }
    }

    /// Tries again what has failed, when it is time.
    pub(super) fn retry(&mut self, now: Instant) {
        if self.next_try.is_some_and(|it| it <= now) {
            self.publish(now);
        }
    }

    /// What is to be told at each port. Of several services with the same port the one keeps it that has it; else the
    /// first by name gets it.
    fn wanted(&mut self) -> BTreeMap<u16, Check> {
        let mut wanted: BTreeMap<u16, Check> = BTreeMap::new();
        for (port, served) in &self.served {
            let owner = lock(&served.check).service.clone();
            let planned = self.planned.get(&owner).filter(|(planned, _)| planned == port);
            if let Some((_, endpoints)) = planned {
                wanted.insert(*port, Check { service: owner, endpoints: *endpoints });
            }
        }
        for (name, (port, endpoints)) in &self.planned {
            let check = Check { service: name.clone(), endpoints: *endpoints };
            let owner = &wanted.entry(*port).or_insert(check).service;
            if owner != name && self.told.insert((*port, name.clone())) {
                tracing::warn!(
                    "the health checks of service {name} are not answered at port {port}, which service {owner} has"
                );
            }
        }
        wanted
    }

    /// Tells this at a port, wherever it can be; what cannot, the first such error tells.
    fn serve(&mut self, port: u16, check: Check) -> io::Result<()> {
        let Self { served, places, .. } = self;
        if !served.contains_key(&port) && served.len() >= MOST_PORTS {
            return Err(io::Error::other(format!("{MOST_PORTS} ports are served already")));
        }
        let held = served.entry(port).or_insert_with(|| Served {
            check: Arc::new(Mutex::new(check.clone())),
            servers: BTreeMap::new(),
        });
        *lock(&held.check) = check;
        held.servers.retain(|place, _| places.contains(place));
        let mut result = Ok(());
        for place in places.iter() {
            if held.servers.contains_key(place) {
                continue;
            }
            match listen(*place, port) {
                Ok(listener) => {
                    let server = answer_at(listener, &held.check, &self.status, &self.connections);
                    held.servers.insert(*place, server);
                }
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }
}

fn answer_at(
    listener: TcpListener,
    check: &Arc<Mutex<Check>>,
    status: &Arc<Status>,
    connections: &Connections,
) -> Server {
    let (check, status) = (Arc::clone(check), Arc::clone(status));
    let connections = connections.clone();
    let server = tokio::spawn(async move {
        let answer = move |_| {
            let answer = answer(&lock(&check), status.is_healthy());
            async move { answer }
        };
        health::serve_within(&connections, listener, answer).await;
    });
    Server(server.abort_handle())
}

fn listen(place: Place, port: u16) -> io::Result<TcpListener> {
    let address = place.unwrap_or(Ipv6Addr::UNSPECIFIED.into());
    let told = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
    health::bind((address, port).into()).map_err(told)
}

/// What kube-proxy answers, at whatever path.
fn answer(check: &Check, is_healthy: bool) -> Answer {
    let Check { service, endpoints } = check;
    let document = json!({
        "service": {"namespace": service.namespace, "name": service.name},
        "localEndpoints": endpoints,
        "serviceProxyHealthy": is_healthy,
    });
    Answer::json(*endpoints > 0 && is_healthy, &document).with_header(WEIGHT, *endpoints)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener as SystemListener;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::metrics::Metrics;

    fn name(name: &str) -> NamespacedName {
        NamespacedName { namespace: "n".to_owned(), name: name.to_owned() }
    }

    fn checks() -> HealthChecks {
        let mut checks = HealthChecks::new(Arc::new(Status::new(Metrics::new())));
        checks.listen_at(&BTreeSet::new(), true, Instant::now());
        checks
    }

    fn plan(checks: &mut HealthChecks, name_: &str, check: Option<(u16, usize)>) {
        let plan = Plan { health_check: check, ..Plan::default() };
        checks.plan(&[(name(name_), Some(Arc::new(plan)))].into());
    }

    /// Ports that nobody has, for now.
    fn free<const COUNT: usize>() -> [u16; COUNT] {
        let all = [(); COUNT].map(|()| SystemListener::bind("[::]:0").unwrap());
        all.map(|it| it.local_addr().unwrap().port())
    }

    async fn ask(port: u16) -> Option<String> {
        ask_at("127.0.0.1", port).await
    }

    async fn ask_at(address: &str, port: u16) -> Option<String> {
        let mut stream = TcpStream::connect((address, port)).await.ok()?;
        let request = b"GET /any HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        Some(text)
    }

    /// Of which service a port tells.
    async fn told(port: u16) -> String {
        let text = ask(port).await.unwrap();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        body["service"]["name"].as_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn ports_come_and_go_with_services_and_tell_of_their_endpoints() {
        let mut checks = checks();
        let [one, other] = free();
        plan(&mut checks, "a", Some((one, 2)));
        // Not before the kernel has it.
        assert_eq!(ask(one).await, None);
        checks.publish(Instant::now());
        let text = ask(one).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        for header in [
            "content-type: application/json",
            "x-content-type-options: nosniff",
            "x-load-balancing-endpoint-weight: 2",
        ] {
            assert!(text.contains(&format!("\r\n{header}\r\n")), "{text}");
        }
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let wanted = json!({
            "service": {"namespace": "n", "name": "a"}, "localEndpoints": 2, "serviceProxyHealthy": true,
        });
        assert_eq!(body, wanted);
        plan(&mut checks, "a", Some((one, 0)));
        checks.publish(Instant::now());
        let text = ask(one).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
        assert!(text.contains("\r\nx-load-balancing-endpoint-weight: 0\r\n"), "{text}");
        // Another port, and none.
        plan(&mut checks, "a", Some((other, 1)));
        checks.publish(Instant::now());
        ask(other).await.unwrap();
        assert_eq!(ask(one).await, None);
        checks.plan(&[(name("a"), None)].into());
        checks.publish(Instant::now());
        tokio::task::yield_now().await;
        assert_eq!(ask(other).await, None);
    }

    #[tokio::test]
    async fn who_has_a_port_keeps_it_and_leaves_it_to_the_next() {
        let mut checks = checks();
        let [port] = free();
        plan(&mut checks, "b", Some((port, 1)));
        checks.publish(Instant::now());
        plan(&mut checks, "a", Some((port, 3)));
        checks.publish(Instant::now());
        assert_eq!(told(port).await, "b");
        assert_eq!(checks.told.len(), 1);
        checks.plan(&[(name("b"), None)].into());
        checks.publish(Instant::now());
        assert_eq!(told(port).await, "a");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_tried_again() {
        let mut checks = checks();
        let taken = SystemListener::bind("[::]:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        plan(&mut checks, "a", Some((port, 1)));
        let now = Instant::now();
        checks.publish(now);
        let servers =
            |of: &HealthChecks| of.served.values().map(|it| it.servers.len()).sum::<usize>();
        assert_eq!((servers(&checks), checks.told.len()), (0, 1));
        drop(taken);
        checks.retry(now);
        assert_eq!(servers(&checks), 0);
        checks.retry(now + PAUSE);
        assert_eq!((servers(&checks), checks.told.len(), checks.next_try), (1, 0, None));
        assert!(ask(port).await.is_some());
    }

    #[tokio::test]
    async fn where_is_listened_follows_the_nodes_addresses() {
        let mut checks = checks();
        let [port] = free();
        let now = Instant::now();
        let addresses = |of: &[&str]| of.iter().map(|it| it.parse().unwrap()).collect();
        checks.listen_at(&addresses(&["127.0.0.2"]), false, now);
        plan(&mut checks, "a", Some((port, 1)));
        checks.publish(now);
        assert!(ask_at("127.0.0.2", port).await.is_some());
        assert_eq!(ask_at("127.0.0.1", port).await, None);
        // One comes, one that is not there, and one that says nothing without its link.
        checks.listen_at(&addresses(&["127.0.0.3", "203.0.113.9", "fe80::1"]), false, now);
        checks.retry(now);
        tokio::task::yield_now().await;
        assert!(ask_at("127.0.0.3", port).await.is_some());
        assert_eq!(ask_at("127.0.0.2", port).await, None);
        assert_eq!((checks.told.len(), checks.next_try), (1, now.checked_add(PAUSE)));
        checks.listen_at(&addresses(&["127.0.0.3"]), false, now);
        checks.retry(now);
        assert_eq!((checks.told.len(), checks.next_try), (0, None));
    }

    #[test]
    fn whatever_endpoints_there_are_an_unhealthy_node_gets_none() {
        let check = Check { service: name("a"), endpoints: 1 };
        assert_ne!(answer(&check, true), answer(&check, false));
    }
}
