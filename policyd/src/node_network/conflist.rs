//! The network configuration list that the container runtime reads. Pure.

use ipnetwork::IpNetwork;
use serde_json::{Map, Value, json};

use super::Error;
use super::constants::{BRIDGE, NETWORK};

/// The plugin that stands last.
const POLICY: &str = "podwire-policy";

/// How pods are joined to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Main {
    /// By a link and a route for each: nothing of it depends on bridges being filtered.
    Ptp,
    /// By a bridge.
    Bridge,
}

/// What the list depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec<'a> {
    /// The ranges of the node's pods.
    pub ranges: &'a [IpNetwork],
    /// The MTU of pods; the plugin's default where it is not known.
    pub mtu: Option<u32>,
    /// How pods are joined.
    pub main: Main,
    /// The plugins between that and the policy.
    pub chained: &'a [Value],
}

impl Spec<'_> {
    /// The text of the file. Runtimes that know version 1.1.0 find it among the versions, and so ask
    /// for the network's status; older ones take the first.
    #[must_use]
    pub fn text(&self) -> String {
        let mut plugins = vec![self.main()];
        plugins.extend(self.chained.iter().cloned());
        plugins.push(json!({"type": POLICY}));
        let list = json!({
            "cniVersion": "1.0.0",
            "cniVersions": ["1.0.0", "1.1.0"],
            "name": NETWORK,
            "plugins": plugins,
        });
        // The kind of value that is always written.
        format!("{list:#}\n")
    }

    fn main(&self) -> Value {
        let mut plugin = Map::new();
        let mut set = |key: &str, value: Value| plugin.insert(key.to_owned(), value);
        match self.main {
            Main::Ptp => _ = set("type", "ptp".into()),
            Main::Bridge => {
                set("type", "bridge".into());
                set("bridge", BRIDGE.into());
                set("isGateway", true.into());
                // Only so a pod reaches itself by a Service.
                set("hairpinMode", true.into());
            }
        }
        if let Some(mtu) = self.mtu {
            set("mtu", mtu.into());
        }
        set("ipam", self.ipam());
        plugin.into()
    }

    fn ipam(&self) -> Value {
        let ranges = self.ranges.iter().map(|range| json!([{"subnet": range.to_string()}]));
        let has = |is_ipv4: bool| self.ranges.iter().any(|it| it.is_ipv4() == is_ipv4);
        let routes = [(true, "0.0.0.0/0"), (false, "::/0")].into_iter();
        let routes =
            routes.filter(|(is_ipv4, _)| has(*is_ipv4)).map(|(_, dst)| json!({"dst": dst}));
        json!({
            "type": "host-local",
            "ranges": ranges.collect::<Vec<_>>(),
            "routes": routes.collect::<Vec<_>>(),
            // No pod outlives its node's boot, and who should have given the address back may have
            // been killed.
            "reclaimAfterReboot": true,
        })
    }
}

/// A plugin that is chained: a JSON object, or a name.
///
/// # Errors
/// It is neither.
pub fn chained(given: &str) -> Result<Value, Error> {
    let bad = || Error::Plugin { given: given.to_owned() };
    if given.starts_with('{') {
        let object: Map<String, Value> = serde_json::from_str(given).map_err(|_| bad())?;
        let kind = object.get("type").and_then(Value::as_str).unwrap_or_default();
        return if is_name(kind) { Ok(object.into()) } else { Err(bad()) };
    }
    match given {
        // Without these a runtime tells them nothing.
        "portmap" => Ok(json!({"type": given, "capabilities": {"portMappings": true}})),
        "bandwidth" => Ok(json!({"type": given, "capabilities": {"bandwidth": true}})),
        _ if is_name(given) => Ok(json!({"type": given})),
        _ => Err(bad()),
    }
}

/// Whether it can be a file of the plugins' folder; the policy is there already.
fn is_name(text: &str) -> bool {
    let is_good = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.');
    text.starts_with(|it: char| it.is_ascii_alphanumeric())
        && text.chars().all(is_good)
        && text != POLICY
}

/// Whether a file is a list that was rendered here, for whichever ranges and options; also with
/// plugins that others have appended, as service meshes do.
#[must_use]
pub fn is_ours(text: &[u8]) -> bool {
    let list: Value = serde_json::from_slice(text).unwrap_or_default();
    let mut plugins = list.get("plugins").and_then(Value::as_array).into_iter().flatten();
    let is_named = list.get("name").and_then(Value::as_str) == Some(NETWORK);
    is_named && plugins.any(|plugin| kind(plugin) == Some(POLICY))
}

/// Whether it is surely one: what people write themselves has no list of versions.
#[must_use]
pub fn is_rendered(text: &[u8]) -> bool {
    let list: Value = serde_json::from_slice(text).unwrap_or_default();
    list.get("cniVersions").is_some_and(Value::is_array) && is_ours(text)
}

/// Whether a file of the runtime's folder is that of a plugin which calls the networks of other
/// files: it belongs ahead of them.
#[must_use]
pub fn is_meta(text: &[u8]) -> bool {
    let conf: Value = serde_json::from_slice(text).unwrap_or_default();
    let plugins = conf.get("plugins").and_then(Value::as_array);
    let first = plugins.and_then(|plugins| plugins.first()).unwrap_or(&conf);
    kind(first).is_some_and(|kind| kind.starts_with("multus"))
}

fn kind(plugin: &Value) -> Option<&str> {
    plugin.get("type")?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(texts: &[&str]) -> Vec<IpNetwork> {
        texts.iter().map(|it| it.parse().unwrap()).collect()
    }

    #[test]
    fn the_default_list() {
        let ranges = ranges(&["10.244.1.0/24", "fd00:1::/64"]);
        let spec = Spec { ranges: &ranges, mtu: Some(1450), main: Main::Ptp, chained: &[] };
        insta::assert_snapshot!(spec.text(), @r#"
        {
          "cniVersion": "1.0.0",
          "cniVersions": [
            "1.0.0",
            "1.1.0"
          ],
          "name": "podwire",
          "plugins": [
            {
              "type": "ptp",
              "mtu": 1450,
              "ipam": {
                "type": "host-local",
                "ranges": [
                  [
                    {
                      "subnet": "10.244.1.0/24"
                    }
                  ],
                  [
                    {
                      "subnet": "fd00:1::/64"
                    }
                  ]
                ],
                "routes": [
                  {
                    "dst": "0.0.0.0/0"
                  },
                  {
                    "dst": "::/0"
                  }
                ],
                "reclaimAfterReboot": true
              }
            },
            {
              "type": "podwire-policy"
            }
          ]
        }
        "#);
        assert!(is_ours(spec.text().as_bytes()));
    }

    #[test]
    fn one_family_has_one_range_and_one_route() {
        for (range, route) in [("10.1.0.0/24", "0.0.0.0/0"), ("fd00:1::/64", "::/0")] {
            let ranges = ranges(&[range]);
            let chained = [chained("portmap").unwrap()];
            let spec = Spec { ranges: &ranges, mtu: None, main: Main::Bridge, chained: &chained };
            let list: Value = serde_json::from_str(&spec.text()).unwrap();
            let [main, portmap, policy] = &list["plugins"].as_array().unwrap()[..] else {
                panic!()
            };
            assert_eq!(main["ipam"]["ranges"], json!([[{"subnet": range}]]));
            assert_eq!(main["ipam"]["routes"], json!([{"dst": route}]));
            assert_eq!((&main["bridge"], &main["mtu"]), (&json!(BRIDGE), &Value::Null));
            assert_eq!(portmap["capabilities"]["portMappings"], true);
            assert_eq!(policy, &json!({"type": POLICY}));
        }
    }

    #[test]
    fn what_is_no_plugin_is_refused() {
        let firewall = r#"{"type":"firewall","backend":"iptables"}"#;
        assert_eq!(chained(firewall).unwrap()["backend"], "iptables");
        assert_eq!(chained("tuning").unwrap(), json!({"type": "tuning"}));
        for bad in ["", "../x", "a b", "{", "{}", r#"{"type":"a/b"}"#, r#"{"type":1}"#, POLICY] {
            let error = chained(bad).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{bad:?}")), "{error}");
        }
    }

    #[test]
    fn files_are_told_apart() {
        for (text, ours, meta) in [
            (r#"{"name":"podwire","plugins":[{"type":"ptp"}]}"#, false, false),
            (r#"{"name":"other","plugins":[{"type":"podwire-policy"}]}"#, false, false),
            (r#"{"name":"podwire","plugins":[{"type":"podwire-policy"}]}"#, true, false),
            // With what a service mesh appends.
            (
                r#"{"name":"podwire","plugins":[{"type":"podwire-policy"},{"type":"istio-cni"}]}"#,
                true,
                false,
            ),
            (r#"{"name":"multus-cni-network","type":"multus-shim"}"#, false, true),
            (r#"{"plugins":[{"type":"multus"}]}"#, false, true),
            ("{", false, false),
            ("[]", false, false),
        ] {
            assert_eq!(
                (is_ours(text.as_bytes()), is_meta(text.as_bytes())),
                (ours, meta),
                "{text}"
            );
        }
    }
}
