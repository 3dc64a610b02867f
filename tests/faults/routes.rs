//! Many routes: more than are sent to the kernel at once.

use serde_json::{Value, json};

use crate::common::{Site, bridge_with_all, ptp_with_all};

/// So many networks, each named twice, which is one route.
const NETWORKS: usize = 300;

fn routes() -> Vec<Value> {
    let route = |n: usize| json!({"dst": format!("10.{}.{}.0/24", 100 + n / 256, n % 256)});
    (0..NETWORKS).chain(0..NETWORKS).map(route).collect()
}

/// Both plugins with host-local, and bridge with static.
fn sites() -> [Site; 3] {
    let mut fixed = Site::new(bridge_with_all());
    let address = json!({"address": "10.1.0.7/16", "gateway": "10.1.0.1"});
    fixed.conf["ipam"] = json!({"type": "static", "addresses": [address]});
    [Site::new(bridge_with_all()), Site::new(ptp_with_all()), fixed]
}

#[test]
fn all_routes_arrive() {
    for mut site in sites() {
        let pod = site.node.pod("pod1");
        let before = site.world(&[&pod]);
        site.conf["ipam"]["routes"] = json!(routes());
        let result = site.add(&pod).ok();
        let arrived = pod.sh("ip route show | grep -c '^10.10[01].*/24 via 10.1.0.1 dev eth0'");
        assert_eq!(arrived.trim(), NETWORKS.to_string());
        let conf = site.conf_with(&json!({"prevResult": result}));
        let _ = site.run(&site.call("CHECK", &pod).conf(&conf)).ok();
        let _ = site.del(&pod).ok();
        site.world(&[&pod]).must_be(&before, "after DEL");
    }
}

#[test]
fn one_of_many_is_refused() {
    for mut site in sites() {
        let pod = site.node.pod("pod1");
        let before = site.world(&[&pod]);
        for at in [0, NETWORKS / 2, NETWORKS + NETWORKS / 2, 2 * NETWORKS] {
            let mut routes = routes();
            routes.insert(at, json!({"dst": "10.99.0.0/16", "gw": "172.30.0.1"}));
            site.conf["ipam"]["routes"] = json!(routes);
            let text = site.add(&pod).expect_error(100).msg;
            assert!(text.contains("10.99.0.0/16 via 172.30.0.1"), "route {at}: {text}");
            site.world(&[&pod]).must_be(&before, "after a failed ADD");
        }
    }
}
