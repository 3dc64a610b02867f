//! What has each node's pods wired, and lets nodes reach the pods of others: the list of CNI plugins
//! from the ranges that the controller manager gave the node, and routes. Nothing else here knows of
//! these; a program on the nodes can take them over, and then this file goes.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::inside::Node;
use crate::kubectl::Kubectl;
use crate::process::{Identity, wait_until};
use crate::settings::{Settings, node_name};

/// The controller manager may take this long to give a new node its ranges.
const RANGES: Duration = Duration::from_secs(120);

/// A route is set within milliseconds; on a busy machine somewhat more.
const ROUTE: Duration = Duration::from_secs(30);

/// A node passes on what is not for itself.
const FORWARD: &str = "for name in ipv4/ip_forward ipv6/conf/all/forwarding; do
    echo 1 >/proc/sys/net/$name
done";

/// By the node itself: what is written below an overlay the node does not see. Whole at once, as the
/// runtime watches the folder.
const PUT: &str = "folder=/etc/cni/net.d
    mkdir -p $folder
    cat >$folder/10-podwire.new
    mv $folder/10-podwire.new $folder/10-podwire.conflist";

/// Has every node wire its pods as the list `template` says, and reach the pods of others. A node that
/// was started again needs it once more.
///
/// # Errors
/// A node has no ranges, or cannot be written to.
pub fn set_up(
    settings: &Settings,
    supervisor: Identity,
    kubectl: &Kubectl,
    template: &Path,
) -> Result<()> {
    let text = std::fs::read(template).map_err(Error::file("read", template))?;
    let template: Value = serde_json::from_slice(&text)
        .map_err(|source| Error::Damaged { path: template.to_owned(), source })?;
    let mut ranges = Vec::new();
    for number in settings.numbers() {
        ranges.push((number, ranges_of(kubectl, settings, number)?));
    }
    for (number, own) in &ranges {
        let node = Node::find(supervisor, *number)?;
        node.run(&["sh", "-euc", FORWARD], &[], ROUTE)?;
        for (other, range) in ranges.iter().filter(|it| it.0 != *number).flat_map(routes) {
            let way = settings.family.ranges().iter().map(|it| it.node(other));
            let way = way.into_iter().find(|it| it.contains(':') == range.contains(':'));
            let way = way.unwrap_or_default();
            node.run(&["ip", "route", "replace", range, "via", &way], &[], ROUTE)?;
        }
        // Last: from then on the node is ready for pods.
        let list = conflist(&template, own).to_string();
        node.run(&["sh", "-euc", PUT], list.as_bytes(), ROUTE)?;
    }
    Ok(())
}

fn routes((number, ranges): &(u8, Vec<String>)) -> impl Iterator<Item = (u8, &str)> {
    ranges.iter().map(|range| (*number, range.as_str()))
}

fn ranges_of(kubectl: &Kubectl, settings: &Settings, number: u8) -> Result<Vec<String>> {
    let name = node_name(number);
    let wanted = settings.family.ranges().len();
    wait_until(
        RANGES,
        || format!("the pod ranges of {name}"),
        || {
            let node = kubectl.json(&["get", "node", &name])?;
            let ranges = node.pointer("/spec/podCIDRs").and_then(Value::as_array);
            let text = |it: &Value| it.as_str().map(str::to_owned);
            let ranges: Vec<_> = ranges.into_iter().flatten().filter_map(text).collect();
            Ok((ranges.len() == wanted).then_some(ranges))
        },
    )
}

/// The list for a node with these ranges.
fn conflist(template: &Value, ranges: &[String]) -> Value {
    let mut list = template.clone();
    let everything = |range: &String| if range.contains(':') { "::/0" } else { "0.0.0.0/0" };
    if let Some(ipam) = list.pointer_mut("/plugins/0/ipam") {
        let subnets = ranges.iter().map(|it| json!([{ "subnet": it }]));
        let routes = ranges.iter().map(|it| json!({ "dst": everything(it) }));
        *ipam = json!({"type": "host-local", "ranges": subnets.collect::<Vec<_>>(),
            "routes": routes.collect::<Vec<_>>()});
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_gets_its_own_ranges_and_the_routes_of_their_families() {
        let template = json!({"plugins": [{"type": "ptp", "ipam": {"type": "host-local",
            "ranges": [[{"subnet": "10.9.0.0/24"}], [{"subnet": "fd00:9::/64"}]]}}]});
        let list = conflist(&template, &["10.244.1.0/24".to_owned()]);
        let ipam = list.pointer("/plugins/0/ipam").unwrap();
        assert_eq!(ipam["ranges"], json!([[{"subnet": "10.244.1.0/24"}]]));
        assert_eq!(ipam["routes"], json!([{"dst": "0.0.0.0/0"}]));
    }
}
