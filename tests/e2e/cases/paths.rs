//! Who reaches whom while no policy says anything.

use std::net::SocketAddr;
use std::time::Duration;

use e2e::traffic::{in_url, seen_as, sockets, who};
use e2e::{Bed, Pod, await_that, objects};

/// kube-proxy and CoreDNS may take this long to know of a new Service.
const TAKEN_UP: Duration = Duration::from_secs(30);

pub(crate) fn pods_reach_pods_and_the_world(bed: &Bed) {
    bed.namespace("paths");
    let client = bed.start(&objects::server("paths", "client"));
    let server = bed.start(&objects::server("paths", "server"));
    assert_eq!(client.addresses.len(), bed.settings().family.ranges().len());
    bed.must_reach(&client, &server);
    bed.must_reach(&server, &client);
    for socket in sockets(&server) {
        // Not masqueraded: the server sees who it is.
        let seen = bed.inside(&client, || seen_as(socket)).unwrap();
        let seen: SocketAddr = seen.parse().unwrap();
        assert!(client.addresses.contains(&seen.ip()), "{seen}");
        bed.on(1, &format!("curl -sf --max-time 10 http://{socket}/healthz"));
    }
    for ranges in bed.settings().family.ranges() {
        let world = SocketAddr::new(ranges.world.parse().unwrap(), objects::PORT);
        // Outside nobody knows the way to a pod, so that only a node's address gets an answer.
        let seen = bed.inside(&client, || seen_as(world)).unwrap();
        let seen: SocketAddr = seen.parse().unwrap();
        assert_eq!(seen.ip().to_string(), ranges.node(client.node));
    }
    bed.remove_namespace("paths");
}

pub(crate) fn pods_of_all_nodes_reach_each_other(bed: &Bed) {
    bed.namespace("spread");
    let start = |number: u8| -> Vec<Pod> {
        let name = |which: &str| format!("{which}-{number}");
        ["a", "b"].map(|it| bed.start(&objects::server_on(number, "spread", &name(it)))).to_vec()
    };
    let pods: Vec<_> = bed.settings().numbers().flat_map(start).collect();
    for from in &pods {
        for to in pods.iter().filter(|to| to.name != from.name) {
            bed.must_reach(from, to);
        }
    }
    bed.remove_namespace("spread");
}

pub(crate) fn services_and_their_names(bed: &Bed) {
    bed.namespace("web");
    let client = bed.start(&objects::server("web", "client"));
    let server = bed.start(&objects::server("web", "server"));
    bed.apply(&objects::service("web", "shop", "server"));
    let service = bed.get(&["service", "-n", "web", "shop"]);
    let addresses = service["spec"]["clusterIPs"].as_array().unwrap();
    assert_eq!(addresses.len(), bed.settings().family.ranges().len());
    for address in addresses {
        let socket = SocketAddr::new(address.as_str().unwrap().parse().unwrap(), 80);
        await_that(&format!("{socket} is answered"), TAKEN_UP, || {
            bed.inside(&client, || who(socket)).is_ok_and(|name| name == server.name)
        });
    }
    await_that("a pod finds a Service by its name", TAKEN_UP, || {
        let ask = ["exec", "-n", "web", "client", "--", "/agnhost", "connect", "--timeout=3s"];
        let asked = |name: &str| bed.try_kubectl(&[&ask[..], &[name]].concat());
        asked("shop:80") && asked("shop.web.svc.cluster.local:80")
    });
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    for ranges in bed.settings().family.ranges() {
        for number in bed.settings().numbers() {
            let node = in_url(ranges.node(number).parse().unwrap());
            let line = format!("curl -sf --max-time 5 http://{node}:{port}/hostname");
            let what = format!("who is outside reaches node port {port} of {node}");
            await_that(&what, TAKEN_UP, || bed.succeeds(0, &line));
        }
    }
    bed.remove_namespace("web");
}
