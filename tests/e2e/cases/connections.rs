//! What the kernel knows of connections, and whether it forgets.

use std::net::SocketAddr;
use std::time::Duration;

use e2e::traffic::{datagram_sockets, sockets, who, who_by_datagram};
use e2e::{Bed, await_that, objects};

/// policyd hears from the API server, or from the plugin, that a pod has gone; soon after that.
const GONE: Duration = Duration::from_secs(60);

/// Who gets an address later would be taken for who had it before, by all connections of its that
/// the kernel still knows: replies go where they went, and marks stay.
pub(crate) fn connections_of_a_pod_go_with_it(bed: &Bed) {
    bed.namespace("connections");
    let server = bed.start(&objects::server_on(1, "connections", "server"));
    let client = bed.start(&objects::server_on(1, "connections", "client"));
    bed.remember_connections(1);
    bed.must_reach(&client, &server);
    let stream = bed.stream(&client, &server);
    for socket in datagram_sockets(&server) {
        bed.inside(&client, || who_by_datagram(socket)).unwrap();
    }
    for ranges in bed.settings().family.ranges() {
        let world = SocketAddr::new(ranges.world.parse().unwrap(), objects::PORT);
        bed.inside(&client, || who(world)).unwrap();
    }
    for socket in sockets(&client) {
        bed.on(1, &format!("curl -sf --max-time 10 http://{socket}/healthz"));
    }
    let of_pods = |it: &_| client.addresses.contains(it) || server.addresses.contains(it);
    assert!(bed.connections(1, of_pods).len() >= 4 * client.addresses.len());
    assert!(stream.end() > 0);
    bed.remove_namespace("connections");
    await_that("no connection of the pods is left", GONE, || {
        bed.connections(1, of_pods).is_empty()
    });
}
