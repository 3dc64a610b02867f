//! bridge: routes and DNS.

use serde_json::{Value, json};

use super::{bridge, dual, fixed, v4, v6};
use crate::case::Case;

pub(super) fn cases() -> Vec<Case> {
    [routes(), default_routes(), dns()].concat()
}

fn with_routes(mut ipam: Value, routes: Value) -> Value {
    ipam["routes"] = routes;
    json!({"isGateway": true, "ipam": ipam})
}

fn routes() -> Vec<Case> {
    let one = |route: Value| with_routes(v4(), json!([route]));
    let gw = "10.1.0.9";
    vec![
        bridge("route", one(json!({"dst": "10.9.0.0/16"}))),
        bridge("route-gateway", one(json!({"dst": "10.9.0.0/16", "gw": gw}))),
        bridge("route-priority", one(json!({"dst": "10.9.0.0/16", "priority": 77}))),
        bridge("route-table", one(json!({"dst": "10.9.0.0/16", "table": 500})))
            .better_check("check-of-routes-in-other-tables"),
        bridge("route-scope-link", one(json!({"dst": "10.9.0.0/16", "scope": 253}))).fails(100),
        bridge("route-mtu", one(json!({"dst": "10.9.0.0/16", "mtu": 1300}))),
        bridge("route-advmss", one(json!({"dst": "10.9.0.0/16", "gw": gw, "advmss": 1200}))),
        bridge(
            "route-v6",
            with_routes(
                v6(),
                json!([{"dst": "fd99::/48"}, {"dst": "fd98::/48", "gw": "fd00:1::9"}]),
            ),
        ),
        bridge(
            "route-v6-mtu",
            with_routes(v6(), json!([{"dst": "fd99::/48", "mtu": 1300, "priority": 5}])),
        ),
        bridge(
            "route-twice-by-other-gateways",
            with_routes(
                v4(),
                json!([
            {"dst": "10.9.0.0/16", "gw": gw, "priority": 1}, {"dst": "10.9.0.0/16", "gw": "10.1.0.8", "priority": 2}]),
            ),
        ),
        bridge("route-host-bits", one(json!({"dst": "10.9.1.1/16"}))).better("route-host-bits"),
        bridge("route-unreachable", one(json!({"dst": "10.9.0.0/16", "gw": "172.30.0.1"})))
            .fails(100),
        bridge("route-not-a-cidr", one(json!({"dst": "10.9.0.0"}))).fails(7),
        bridge("route-of-the-other-family", with_routes(v4(), json!([{"dst": "fd99::/48"}]))),
    ]
}

fn default_routes() -> Vec<Case> {
    let all4 = || json!([{"dst": "0.0.0.0/0"}]);
    let is_default = json!({"isDefaultGateway": true});
    vec![
        bridge("default-route", with_routes(v4(), all4())),
        bridge(
            "default-route-dual",
            with_routes(dual(), json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}])),
        ),
        bridge(
            "default-route-with-gateway",
            with_routes(v4(), json!([{"dst": "0.0.0.0/0", "gw": "10.1.0.9"}])),
        ),
        bridge(
            "default-gateway-and-route-with-gateway",
            with_routes(v4(), json!([{"dst": "0.0.0.0/0", "gw": "10.1.0.9"}])),
        )
        .with(is_default.clone()),
        bridge("default-gateway-and-route", with_routes(v4(), all4()))
            .with(is_default.clone())
            .better("identical-default-route"),
        bridge("default-gateway-and-route-v6", with_routes(v6(), json!([{"dst": "::/0"}])))
            .with(is_default.clone())
            .better("identical-default-route"),
        bridge(
            "default-gateway-v6-and-route-v4",
            with_routes(dual(), json!([{"dst": "0.0.0.0/0", "gw": "10.1.0.9"}])),
        )
        .with(is_default),
        bridge(
            "address-without-gateway",
            json!({"ipam": fixed(json!([{"address": "fd00:1::7/64"}]))}),
        ),
    ]
}

fn dns() -> Vec<Case> {
    let ipam = || {
        json!({"type": "static", "addresses": [{"address": "10.1.0.7/24"}],
        "dns": {"nameservers": ["10.1.0.1"], "domain": "a.example", "search": ["b.example"], "options": ["ndots:2"]}})
    };
    vec![
        bridge("dns-of-ipam", json!({"ipam": ipam()})),
        bridge("dns-replaced", json!({"ipam": ipam(), "dns": {"nameservers": ["10.9.9.9"]}})),
        bridge(
            "dns-replaced-by-a-search-list",
            json!({"ipam": ipam(), "dns": {"search": ["c.example"]}}),
        ),
        bridge(
            "dns-replaced-by-an-empty-list",
            json!({"ipam": ipam(), "dns": {"nameservers": []}}),
        ),
        bridge("dns-empty", json!({"ipam": ipam(), "dns": {}})),
        bridge("dns-0.3.1", json!({"ipam": ipam()})).version("0.3.1"),
    ]
}
