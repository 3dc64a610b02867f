//! The sbr plugin's configuration.

use std::net::IpAddr;

use cni::decode::Fields;
use cni::{Call, NetConf};

use crate::conf;
use crate::error::Error;

/// The keys of an sbr configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Conf {
    /// A table that somebody else fills; `None` has sbr fill one for each address.
    pub(crate) table: Option<u32>,
    /// The way out, in the place of the result's gateway: at most one of each family.
    pub(crate) gateways: Vec<IpAddr>,
    /// The interface's networks stay in the main table, with its address as the preferred source.
    pub(crate) add_source_hints: bool,
}

impl Conf {
    /// Reads the call's configuration.
    pub(crate) fn parse(call: &Call) -> Result<Self, Error> {
        conf::strictly(call, read)
    }

    /// Reads what can be read: for DEL, which removes what it can.
    pub(crate) fn parse_leniently(call: &Call) -> Self {
        conf::leniently(call, read)
    }

    /// The gateway that the configuration has for a family.
    pub(super) fn gateway(&self, is_ipv4: bool) -> Option<IpAddr> {
        self.gateways.iter().copied().find(|gateway| gateway.is_ipv4() == is_ipv4)
    }
}

/// Reads every key, telling problems to `fields`.
pub(crate) fn read(fields: &Fields<'_>) -> Conf {
    let _ = NetConf::dns(fields);
    Conf {
        table: read_table(fields),
        gateways: read_gateways(fields),
        add_source_hints: fields.bool("addSourceHints").unwrap_or_default(),
    }
}

/// Table 0 means any empty one to the kernel, which nobody fills.
fn read_table(fields: &Fields<'_>) -> Option<u32> {
    let number = fields.integer("table")?;
    let table = u32::try_from(number).ok().filter(|table| *table > 0);
    if table.is_none() {
        fields.invalid("table", format!("{number} is not from 1 to {}", u32::MAX));
    }
    table
}

fn read_gateways(fields: &Fields<'_>) -> Vec<IpAddr> {
    let mut gateways: Vec<IpAddr> = Vec::new();
    let elements = fields.array("gateways").unwrap_or_default();
    if elements.len() > 2 {
        let text = "gateways list cannot contain more than 2 entries (one IPv4, one IPv6)";
        fields.invalid("gateways", text);
    }
    for element in elements {
        let Some(text) = element.string() else { continue };
        let Some(gateway) = cni::parse_address(text) else {
            element.invalid(format!("invalid static gateway IP address: {text:?}"));
            continue;
        };
        if let Some(other) = gateways.iter().find(|it| it.is_ipv4() == gateway.is_ipv4()) {
            let family = if gateway.is_ipv4() { "IPv4" } else { "IPv6" };
            element.invalid(format!(
                "gateways list contains multiple {family} addresses: {other} and {gateway}"
            ));
            continue;
        }
        gateways.push(gateway);
    }
    gateways
}

#[cfg(test)]
mod tests {
    use super::*;
    use cni::decode::Problems;
    use serde_json::{Value, json};

    fn parse(text: &Value) -> Result<Conf, String> {
        let problems = Problems::default();
        let fields = Fields::root(text.as_object().unwrap(), &problems);
        let conf = read(&fields);
        problems.into_result().map(|()| conf).map_err(|error| error.to_string())
    }

    #[test]
    fn every_key_is_read() {
        assert_eq!(parse(&json!({"table": null, "gateways": []})).unwrap(), Conf::default());
        let conf = parse(&json!({"table": 100_000, "gateways": ["fd00::1", "10.0.0.1"],
            "addSourceHints": true}))
        .unwrap();
        assert_eq!((conf.table, conf.add_source_hints), (Some(100_000), true));
        let gateways = [true, false].map(|is_ipv4| conf.gateway(is_ipv4).unwrap().to_string());
        assert_eq!(gateways, ["10.0.0.1", "fd00::1"]);
    }

    #[test]
    fn wrong_values_are_told_with_their_place() {
        for (text, expected) in [
            (json!({"table": 0}), "table: 0 is not from 1"),
            (json!({"table": -1}), "table: -1 is not from 1"),
            (json!({"table": 4_294_967_296_u64}), "table: 4294967296 is not from 1"),
            (json!({"table": "100"}), "table: expected an integer, found a string"),
            (json!({"gateways": ["x"]}), "gateways[0]: invalid static gateway IP address: \"x\""),
            (json!({"gateways": [""]}), "gateways[0]: invalid static gateway IP address: \"\""),
            (
                json!({"gateways": ["10.0.0.1", "10.0.0.2"]}),
                "gateways[1]: gateways list contains multiple IPv4 addresses: 10.0.0.1 and 10.0.0.2",
            ),
            (
                json!({"gateways": ["10.0.0.1", "fd00::1", "10.0.0.2"]}),
                "gateways: gateways list cannot contain more than 2 entries",
            ),
            (json!({"addSourceHints": 1}), "addSourceHints: expected a boolean"),
        ] {
            let told = parse(&text).unwrap_err();
            assert!(told.contains(expected), "{text}: {told}");
        }
    }
}
