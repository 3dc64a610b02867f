//! Routes and rules of both families.

use serde_json::Value;

use super::links::plain;

pub(crate) fn facts(place: &str, [routes, rules4, rules6]: &[Vec<Value>; 3]) -> Vec<String> {
    let family = |route: &Value| match route["dst"].as_str() {
        Some(destination) if destination.contains(':') => "route6",
        // "default" tells its family only by what IPv6 routes alone have.
        _ if route.get("pref").is_some() => "route6",
        _ => "route4",
    };
    let routes = routes.iter().map(|route| (family(route), route));
    let rules4 = rules4.iter().map(|rule| ("rule4", rule));
    let rules6 = rules6.iter().map(|rule| ("rule6", rule));
    let all = routes.chain(rules4).chain(rules6);
    all.map(|(kind, value)| format!("{place} {kind} {}", fact(kind, value))).collect()
}

/// A route as `table dst key=value ...`, a rule as `key=value ...`.
fn fact(kind: &str, value: &Value) -> String {
    let mut words = Vec::new();
    let is_route = kind.starts_with("route");
    for (key, value) in value.as_object().into_iter().flatten() {
        match key.as_str() {
            "expires" => {}
            "dst" if is_route => {}
            "table" if is_route => {}
            "flags" if value.as_array().is_some_and(Vec::is_empty) => {}
            "pref" if value == "medium" => {}
            _ => words.push(format!("{key}={}", plain(value))),
        }
    }
    if !is_route {
        return words.join(" ");
    }
    format!("{} {} {}", plain(&value["table"]), plain(&value["dst"]), words.join(" "))
}
