//! What policyd is told of an attachment: from `prevResult`, `CNI_ARGS` and the kernel.

use std::collections::BTreeSet;
use std::net::IpAddr;

use attachment::{Attachment, HostInterface, Pod};
use cni::args::Args;
use cni::{AddResult, Call};
use netlink::Socket;

use crate::error::Error;
use crate::veth;

/// What kubelet and others tell of the pod, and what other plugins of the chain read.
const KNOWN_ARGS: [&str; 7] = [
    "K8S_POD_NAMESPACE",
    "K8S_POD_NAME",
    "K8S_POD_UID",
    "K8S_POD_INFRA_CONTAINER_ID",
    "IP",
    "GATEWAY",
    "MAC",
];

/// The attachment that a call of ADD made.
pub(super) fn attachment(call: &Call, result: &AddResult) -> Result<Attachment, Error> {
    Ok(Attachment {
        container_id: call.container_id.clone(),
        ifname: call.ifname.clone(),
        netns: call.netns.as_deref().map(|path| path.display().to_string()).unwrap_or_default(),
        network: call.conf.name.clone(),
        pod: pod(&call.args)?,
        addresses: addresses(result, &call.ifname)?,
        host_interface: host_interface(call)?,
    })
}

/// The pod, where the runtime names one.
fn pod(args: &str) -> Result<Option<Pod>, Error> {
    let args = Args::parse(args, &KNOWN_ARGS)?;
    let text = |key| args.get(key).filter(|text| !text.is_empty()).map(str::to_owned);
    let (namespace, name) = (text("K8S_POD_NAMESPACE"), text("K8S_POD_NAME"));
    let Some((namespace, name)) = namespace.zip(name) else { return Ok(None) };
    Ok(Some(Pod { namespace, name, uid: text("K8S_POD_UID") }))
}

/// The addresses of the container's interface. Those that name no interface are its own, too: the
/// versions before 0.3.0 name none.
pub(super) fn addresses(result: &AddResult, ifname: &str) -> Result<BTreeSet<IpAddr>, Error> {
    let is_ours = |index: i64| {
        let entry = usize::try_from(index).ok().and_then(|index| result.interfaces.get(index));
        entry.is_some_and(|entry| entry.name == ifname && !entry.sandbox.is_empty())
    };
    let ours = result.ips.iter().filter(|ip| ip.interface.is_none_or(is_ours));
    let mut addresses = BTreeSet::new();
    addresses.extend(ours.map(|ip| ip.address.ip()));
    if addresses.is_empty() {
        return Err(Error::Config(format!(
            "prevResult: it has no address of interface {ifname:?}"
        )));
    }
    Ok(addresses)
}

/// The host's end of the container's link, and its bridge.
fn host_interface(call: &Call) -> Result<Option<HostInterface>, Error> {
    let mut host = Socket::open()?;
    let Some(link) = veth::host_end(call, &mut host)? else { return Ok(None) };
    let controller = match link.controller {
        Some(index) => host.link_by_index(index)?,
        None => None,
    };
    let bridge = controller.filter(|it| it.kind == "bridge").map(|it| it.name);
    Ok(Some(HostInterface { name: link.name, bridge }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cni::Version;
    use serde_json::{Value, json};

    fn told(version: &str, result: Value) -> Vec<String> {
        let version = Version::parse(version).unwrap();
        let result = AddResult::from_prev_result(&result, version).unwrap();
        let found = addresses(&result, "eth0").unwrap_or_default();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_are_those_of_the_containers_interface() {
        let interfaces = json!([{"name": "eth0"}, {"name": "eth0", "sandbox": "/n"},
            {"name": "net1", "sandbox": "/n"}]);
        let ip =
            |address: &str, interface: Value| json!({"address": address, "interface": interface});
        let result = json!({"interfaces": interfaces, "ips": [ip("10.0.0.2/24", json!(1)),
            ip("fd00::2/64", json!(1)), ip("10.0.0.3/24", json!(0)), ip("10.9.0.2/24", json!(2)),
            ip("10.9.0.3/24", json!(7)), ip("10.9.0.4/24", json!(-1)), ip("10.0.0.5/24", json!(null))]});
        assert_eq!(told("1.0.0", result), ["10.0.0.2", "10.0.0.5", "fd00::2"]);
        assert_eq!(told("1.0.0", json!({"interfaces": interfaces, "ips": []})), [""; 0]);
    }

    #[test]
    fn old_results_tell_addresses_alone() {
        let result = json!({"ip4": {"ip": "10.0.0.2/24"}, "ip6": {"ip": "fd00::2/64"}});
        assert_eq!(told("0.2.0", result), ["10.0.0.2", "fd00::2"]);
    }

    #[test]
    fn a_pod_has_a_namespace_and_a_name() {
        let all = "IgnoreUnknown=1;K8S_POD_NAMESPACE=x;K8S_POD_NAME=a;K8S_POD_INFRA_CONTAINER_ID=c;K8S_POD_UID=u";
        let expected = Pod { namespace: "x".into(), name: "a".into(), uid: Some("u".into()) };
        assert_eq!(pod(all).unwrap(), Some(expected.clone()));
        let without = pod("K8S_POD_NAMESPACE=x;K8S_POD_NAME=a;K8S_POD_UID=").unwrap();
        assert_eq!(without, Some(Pod { uid: None, ..expected }));
        for none in ["", "K8S_POD_NAME=a", "K8S_POD_NAMESPACE=;K8S_POD_NAME=a", "IP=10.0.0.2"] {
            assert_eq!(pod(none).unwrap(), None, "{none}");
        }
        assert!(pod("FOO=1").is_err());
    }
}
