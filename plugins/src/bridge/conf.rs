//! The bridge plugin's configuration.

use cni::args::Args;
use cni::decode::{Fields, Severity};
use cni::{Call, Dns, NetConf};
use netlink::{HardwareAddress, PortOptions};

use crate::backend::Backend;
use crate::conf;
use crate::error::Error;

/// What a name is when the configuration has none.
const DEFAULT_BRIDGE: &str = "cni0";
/// VLAN ids that a frame can carry.
const VLAN_IDS: std::ops::RangeInclusive<i64> = 1..=4094;

/// The keys of a bridge configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conf {
    /// The bridge's name.
    pub(crate) bridge: String,
    /// The bridge gets the gateway's addresses, and the host forwards.
    pub(crate) is_gateway: bool,
    /// And the container a default route to it.
    pub(crate) is_default_gateway: bool,
    /// A conflicting address of the bridge is replaced.
    pub(crate) force_address: bool,
    /// Traffic that leaves the network is masqueraded.
    pub(crate) ip_masq: bool,
    /// How; `None` leaves the choice to podwire.
    pub(crate) ip_masq_backend: Option<Backend>,
    /// Bytes, for bridge and veth; `None` leaves the kernel's default.
    pub(crate) mtu: Option<u32>,
    /// Options of the host's end as a bridge port.
    pub(crate) port: PortOptions,
    /// The bridge is promiscuous.
    pub(crate) promiscuous: bool,
    /// The port's own VLAN; 0 is none.
    pub(crate) vlan: u16,
    /// VLANs that the port carries tagged, sorted; `None` without the key.
    pub(crate) trunk: Option<Vec<u16>>,
    /// The port keeps VLAN 1.
    pub(crate) preserve_default_vlan: bool,
    /// Frames with a source other than the container's address are dropped.
    pub(crate) mac_spoof_check: bool,
    /// IPv6 duplicate address detection in the container.
    pub(crate) detect_duplicates: bool,
    /// The container's end stays down.
    pub(crate) disable_container_interface: bool,
    /// The container's hardware address.
    pub(crate) mac: Option<HardwareAddress>,
    /// `ipam.type` is given.
    pub(crate) has_ipam: bool,
    /// Replaces what IPAM says.
    pub(crate) dns: Option<Dns>,
}

impl Conf {
    /// Reads the call's configuration.
    pub(crate) fn parse(call: &Call) -> Result<Self, Error> {
        let args = Args::parse(&call.args, &["MAC"])?;
        conf::strictly(call, |fields| read(fields, args.get("MAC")))
    }

    /// Reads what can be read: for DEL and GC, which remove what they can.
    pub(crate) fn parse_leniently(call: &Call) -> Self {
        conf::leniently(call, |fields| read(fields, None))
    }

    /// The key that asks for what ADD and CHECK cannot do yet.
    pub(crate) fn unsupported(&self) -> Option<&'static str> {
        let unsupported = [(self.vlan != 0, "vlan"), (self.trunk.is_some(), "vlanTrunk")];
        unsupported.into_iter().find(|(is_asked, _)| *is_asked).map(|(_, key)| key)
    }

    /// Refuses what ADD and CHECK cannot do yet, before anything is touched.
    pub(crate) fn ensure_supported(&self) -> Result<(), Error> {
        Error::unless_supported("bridge", self.unsupported())
    }
}

/// Reads every key of a bridge configuration, telling problems to `fields`. `mac_arg` is the `MAC`
/// of `CNI_ARGS`.
pub(crate) fn read(fields: &Fields<'_>, mac_arg: Option<&str>) -> Conf {
    let flag = |key| fields.bool(key).unwrap_or_default();
    let is_default_gateway = flag("isDefaultGateway");
    let conf = Conf {
        bridge: read_bridge(fields),
        is_gateway: flag("isGateway") || is_default_gateway,
        is_default_gateway,
        force_address: flag("forceAddress"),
        ip_masq: flag("ipMasq"),
        ip_masq_backend: read_backend(fields),
        mtu: read_mtu(fields),
        port: PortOptions { hairpin: flag("hairpinMode"), isolated: flag("portIsolation") },
        promiscuous: flag("promiscMode"),
        vlan: read_vlan(fields),
        trunk: read_trunk(fields),
        preserve_default_vlan: flag("preserveDefaultVlan"),
        mac_spoof_check: flag("macspoofchk"),
        detect_duplicates: flag("enabledad"),
        disable_container_interface: flag("disableContainerInterface"),
        mac: read_mac(fields, mac_arg),
        has_ipam: fields
            .object("ipam")
            .is_some_and(|ipam| ipam.string("type").is_some_and(|name| !name.is_empty())),
        dns: NetConf::dns(fields),
    };
    if conf.disable_container_interface && conf.has_ipam {
        let text = "cannot use IPAM when DisableContainerInterface flag is set";
        fields.invalid("disableContainerInterface", text);
    }
    if conf.port.hairpin && conf.promiscuous {
        let text = "cannot set hairpin mode and promiscuous mode at the same time";
        fields.invalid("hairpinMode", text);
    }
    conf
}

fn read_bridge(fields: &Fields<'_>) -> String {
    let name = fields.string("bridge").unwrap_or(DEFAULT_BRIDGE);
    if let Some(problem) = cni::ifname_problem(name) {
        fields.invalid("bridge", format!("{name:?}: {problem}"));
    }
    name.to_owned()
}

/// Reads `mtu`. What is not positive leaves it to the kernel, as in the reference plugins.
pub(crate) fn read_mtu(fields: &Fields<'_>) -> Option<u32> {
    let mtu = fields.integer("mtu").filter(|mtu| *mtu > 0)?;
    let number = u32::try_from(mtu).ok();
    if number.is_none() {
        fields.invalid("mtu", format!("{mtu} is larger than any MTU"));
    }
    number
}

/// Reads `ipMasqBackend`.
pub(crate) fn read_backend(fields: &Fields<'_>) -> Option<Backend> {
    let text = fields.string("ipMasqBackend")?;
    let backend = Backend::parse(text);
    if backend.is_none() {
        fields.invalid("ipMasqBackend", format!("unknown ipmasq backend {text:?}"));
    }
    backend
}

/// `runtimeConfig.mac`, else `args.cni.mac`, else the `MAC` of `CNI_ARGS`.
fn read_mac(fields: &Fields<'_>, mac_arg: Option<&str>) -> Option<HardwareAddress> {
    let of_runtime = fields.object("runtimeConfig").and_then(|object| object.string("mac"));
    let of_args = fields
        .object("args")
        .and_then(|args| args.object("cni"))
        .and_then(|object| object.string("mac"));
    let named = [
        ("runtimeConfig.mac", of_runtime, Severity::Invalid),
        ("args.cni.mac", of_args, Severity::Invalid),
        ("MAC", mac_arg, Severity::Environment),
    ];
    let given = |text: Option<&str>| text.is_some_and(|text| !text.is_empty());
    let (place, text, severity) = named.into_iter().find(|(_, text, _)| given(*text))?;
    let text = text?;
    let mac = HardwareAddress::parse(text);
    if mac.is_none() {
        fields.problems().add(severity, place, format!("address {text}: invalid MAC address"));
    }
    mac
}

fn read_vlan(fields: &Fields<'_>) -> u16 {
    let vlan = fields.integer("vlan").unwrap_or_default();
    if vlan != 0 && !VLAN_IDS.contains(&vlan) {
        fields.invalid("vlan", format!("invalid VLAN ID {vlan} (must be between 0 and 4094)"));
    }
    u16::try_from(vlan).unwrap_or_default()
}

/// The trunk's VLANs: the union of ids and ranges.
fn read_trunk(fields: &Fields<'_>) -> Option<Vec<u16>> {
    let mut vlans = Vec::new();
    for element in fields.array("vlanTrunk")? {
        let Some(entry) = element.object() else { continue };
        let number = |key| entry.integer(key);
        let (min, max, id) = (number("minID"), number("maxID"), number("id"));
        entry.finish();
        match trunk_range(min, max, id) {
            Ok(ranges) => vlans.extend(ranges.into_iter().flatten()),
            Err(problem) => element.invalid(problem),
        }
    }
    vlans.sort_unstable();
    vlans.dedup();
    Some(vlans)
}

type VlanRange = std::ops::RangeInclusive<u16>;

fn trunk_range(
    min: Option<i64>,
    max: Option<i64>,
    id: Option<i64>,
) -> Result<Vec<VlanRange>, &'static str> {
    let vlan = |value: i64, problem| {
        u16::try_from(value).ok().filter(|_| VLAN_IDS.contains(&value)).ok_or(problem)
    };
    let mut ranges = Vec::new();
    match (min, max) {
        (Some(min), Some(max)) => {
            let first = vlan(min, "incorrect trunk minID parameter")?;
            let last = vlan(max, "incorrect trunk maxID parameter")?;
            if first > last {
                return Err("minID is greater than maxID in trunk parameter");
            }
            ranges.push(first..=last);
        }
        (None, Some(_)) => {
            return Err("minID and maxID should be configured simultaneously, minID is missing");
        }
        (Some(_), None) => {
            return Err("minID and maxID should be configured simultaneously, maxID is missing");
        }
        (None, None) => {}
    }
    if let Some(id) = id {
        let id = vlan(id, "incorrect trunk id parameter")?;
        ranges.push(id..=id);
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests;
