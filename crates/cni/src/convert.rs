//! Results of every version family, to and from the newest (reference: libcni `types/convert`).

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::decode::{Element, Fields, Problems};
use crate::result::{AddResult, Dns, Interface, IpConfig, Route};
use crate::version::Family;
use crate::{Error, Version};

pub(crate) fn to_json(result: &AddResult, version: Version) -> Result<Value, Error> {
    match version.family() {
        Family::Ip4Ip6 => ip4_ip6_to_json(result, version),
        family => Ok(ips_to_json(result, version, family)),
    }
}

fn ips_to_json(result: &AddResult, version: Version, family: Family) -> Value {
    let mut document = Map::new();
    document.insert("cniVersion".into(), version.as_str().into());
    let mut list = |key: &str, values: Vec<Value>| {
        if !values.is_empty() {
            document.insert(key.into(), values.into());
        }
    };
    list("interfaces", result.interfaces.iter().map(|i| interface_to_json(i, family)).collect());
    list("ips", result.ips.iter().map(|ip| ip_to_json(ip, family)).collect());
    list("routes", result.routes.iter().map(route_to_json).collect());
    // Runtimes of the old families look for the key; those of the new one expect it only if set.
    if family == Family::VersionedIps || !result.dns.is_empty() {
        document.insert("dns".into(), dns_to_json(&result.dns));
    }
    Value::Object(document)
}

fn ip4_ip6_to_json(result: &AddResult, version: Version) -> Result<Value, Error> {
    let mut document = Map::new();
    document.insert("cniVersion".into(), version.as_str().into());
    for (key, is_v4) in [("ip4", true), ("ip6", false)] {
        let Some(ip) = result.ips.iter().find(|ip| ip.address.is_ipv4() == is_v4) else {
            continue;
        };
        let mut half = Map::new();
        half.insert("ip".into(), ip.address.to_string().into());
        insert_address(&mut half, "gateway", ip.gateway);
        let routes: Vec<Value> = result
            .routes
            .iter()
            .filter(|route| route.dst.is_ipv4() == is_v4)
            .map(|route| route_to_json(&Route::new(route.dst, route.gw)))
            .collect();
        if !routes.is_empty() {
            half.insert("routes".into(), routes.into());
        }
        document.insert(key.into(), half.into());
    }
    if document.len() == 1 {
        return Err(Error::Convert { version, problem: "no valid IP addresses" });
    }
    document.insert("dns".into(), dns_to_json(&result.dns));
    Ok(Value::Object(document))
}

fn interface_to_json(interface: &Interface, family: Family) -> Value {
    let mut document = Map::new();
    document.insert("name".into(), interface.name.clone().into());
    insert_text(&mut document, "mac", &interface.mac);
    if family == Family::Ips {
        insert_number(&mut document, "mtu", interface.mtu);
    }
    insert_text(&mut document, "sandbox", &interface.sandbox);
    if family == Family::Ips {
        insert_text(&mut document, "socketPath", &interface.socket_path);
        insert_text(&mut document, "pciID", &interface.pci_id);
    }
    Value::Object(document)
}

fn ip_to_json(ip: &IpConfig, family: Family) -> Value {
    let mut document = Map::new();
    if family == Family::VersionedIps {
        let version = if ip.address.is_ipv4() { "4" } else { "6" };
        document.insert("version".into(), version.into());
    }
    insert_number(&mut document, "interface", ip.interface);
    document.insert("address".into(), ip.address.to_string().into());
    insert_address(&mut document, "gateway", ip.gateway);
    Value::Object(document)
}

fn route_to_json(route: &Route) -> Value {
    let mut document = Map::new();
    document.insert("dst".into(), route.dst.to_string().into());
    insert_address(&mut document, "gw", route.gw);
    // The reference leaves out zero for the first three, but not for table and scope.
    insert_number(&mut document, "mtu", route.mtu.filter(|value| *value != 0));
    insert_number(&mut document, "advmss", route.advmss.filter(|value| *value != 0));
    insert_number(&mut document, "priority", route.priority.filter(|value| *value != 0));
    insert_number(&mut document, "table", route.table);
    insert_number(&mut document, "scope", route.scope);
    Value::Object(document)
}

fn dns_to_json(dns: &Dns) -> Value {
    let mut document = Map::new();
    let mut list = |key: &str, values: &[String]| {
        if !values.is_empty() {
            document.insert(key.into(), json!(values));
        }
    };
    list("nameservers", &dns.nameservers);
    list("search", &dns.search);
    list("options", &dns.options);
    insert_text(&mut document, "domain", &dns.domain);
    Value::Object(document)
}

fn insert_text(document: &mut Map<String, Value>, key: &str, text: &str) {
    if !text.is_empty() {
        document.insert(key.into(), text.into());
    }
}

fn insert_number(document: &mut Map<String, Value>, key: &str, number: Option<i64>) {
    if let Some(number) = number {
        document.insert(key.into(), number.into());
    }
}

fn insert_address(document: &mut Map<String, Value>, key: &str, address: Option<IpAddr>) {
    if let Some(address) = address {
        document.insert(key.into(), address.to_string().into());
    }
}

/// Reads a result document; the error says what is wrong with it, and where.
pub(crate) fn from_json(document: &Value, version: Version) -> Result<AddResult, String> {
    let members = document.as_object().ok_or("it is not an object")?;
    let problems = Problems::default();
    let fields = Fields::root(members, &problems);
    let mut result = match version.family() {
        Family::Ip4Ip6 => read_ip4_ip6(&fields),
        _ => AddResult {
            interfaces: read_each(&fields, "interfaces", read_interface),
            ips: read_each(&fields, "ips", read_ip),
            routes: read_each(&fields, "routes", |element| Route::read(&element.object()?)),
            dns: Dns::default(),
        },
    };
    result.dns = fields.object("dns").map(|dns| Dns::read(&dns)).unwrap_or_default();
    match problems.into_vec().into_iter().next() {
        None => Ok(result),
        Some(problem) => Err(problem.to_string()),
    }
}

fn read_each<T>(
    fields: &Fields<'_>,
    key: &'static str,
    read: impl Fn(&Element<'_>) -> Option<T>,
) -> Vec<T> {
    fields.array(key).unwrap_or_default().iter().filter_map(read).collect()
}

fn read_interface(element: &Element<'_>) -> Option<Interface> {
    let fields = element.object()?;
    let text = |key| fields.string(key).unwrap_or_default().to_owned();
    Some(Interface {
        name: text("name"),
        mac: text("mac"),
        mtu: fields.integer("mtu"),
        sandbox: text("sandbox"),
        socket_path: text("socketPath"),
        pci_id: text("pciID"),
    })
}

fn read_ip(element: &Element<'_>) -> Option<IpConfig> {
    let fields = element.object()?;
    let interface = fields.integer("interface");
    let gateway = fields.address("gateway");
    if !fields.has("address") {
        fields.invalid("address", "missing");
    }
    Some(IpConfig { interface, address: fields.cidr("address")?, gateway })
}

fn read_ip4_ip6(fields: &Fields<'_>) -> AddResult {
    let mut result = AddResult::default();
    for key in ["ip4", "ip6"] {
        let Some(half) = fields.object(key) else { continue };
        let gateway = half.address("gateway");
        if let Some(address) = half.cidr("ip") {
            result.ips.push(IpConfig { interface: None, address, gateway });
        }
        // A route of this family without a next hop goes by the address's own gateway.
        let read = |element: &Element<'_>| {
            let mut route = Route::read(&element.object()?)?;
            route.gw = route.gw.or(gateway);
            Some(route)
        };
        result.routes.extend(read_each(&half, "routes", read));
    }
    result
}

#[cfg(test)]
mod tests;
