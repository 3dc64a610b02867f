//! The tuning plugin's configuration.

use std::path::PathBuf;

use cni::args::Args;
use cni::decode::{Fields, Problems, Severity};
use cni::{AddResult, Call, NetConf};
use netlink::HardwareAddress;

use super::settings::Settings;
use crate::conf;
use crate::container_interface::IPV6_MIN_MTU;
use crate::error::Error;
use crate::prev_result;

/// Where the reference plugin keeps what interfaces were like, too.
const DEFAULT_DATA_DIR: &str = "/run/cni/tuning";
/// Stands in a key for the interface's name.
const IFNAME: &str = "IFNAME";

/// The keys of a tuning configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conf {
    /// Kernel parameters, in the order in which they are written.
    pub(crate) sysctls: Vec<Sysctl>,
    /// Of the container's interface.
    pub(crate) link: Settings,
    /// The folder for what interfaces were like before.
    pub(crate) data_dir: PathBuf,
}

/// A kernel parameter and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sysctl {
    /// As the configuration names it: `net.ipv4.conf.IFNAME.arp_filter`.
    pub(crate) key: String,
    /// What is written.
    pub(crate) value: String,
}

impl Sysctl {
    /// The path below `/proc/sys`. Dots of an interface's name stay.
    pub(super) fn path(&self, ifname: &str) -> String {
        self.parts().replacen(IFNAME, ifname, 1)
    }

    fn parts(&self) -> String {
        let key = self.key.replace('.', "/");
        key.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
    }

    /// Whether what the kernel shows is this value: it shows numbers in tens, with tabs in between.
    /// An empty value sets nothing.
    pub(super) fn is(&self, shown: &str) -> bool {
        let words = |text: &str| text.split_whitespace().map(number_or_text).collect::<Vec<_>>();
        self.value.is_empty() || words(&self.value) == words(shown)
    }
}

/// A number in tens, as the kernel reads it (`0x10` and `020` are 16), or the text that it is.
fn number_or_text(word: &str) -> String {
    let (sign, digits) = word.strip_prefix('-').map_or(("", word), |digits| ("-", digits));
    let (base, rest) = match digits.strip_prefix('0') {
        Some(rest) => rest.strip_prefix(['x', 'X']).map_or((8, digits), |rest| (16, rest)),
        None => (10, digits),
    };
    let is_plain = !rest.starts_with(['+', '-']);
    match u64::from_str_radix(rest, base).ok().filter(|_| is_plain) {
        Some(0) => "0".to_owned(),
        Some(number) => format!("{sign}{number}"),
        None => word.to_owned(),
    }
}

impl Conf {
    /// Reads the call's configuration.
    pub(crate) fn parse(call: &Call) -> Result<Self, Error> {
        let problems = Problems::default();
        let fields = Fields::root(&call.conf.raw, &problems);
        let args = Args::parse(&call.args, &["MAC"])?;
        NetConf::read_common(&fields);
        let conf = read(&fields, args.get("MAC"), &cni::duplicates(&call.stdin));
        problems.into_result()?;
        Ok(conf)
    }

    /// Reads what can be read: for DEL and GC, which remove what they can.
    pub(crate) fn parse_leniently(call: &Call) -> Self {
        conf::leniently(call, |fields| read(fields, None, &[]))
    }

    /// Refuses an MTU with which the interface would lose its IPv6 addresses.
    pub(super) fn refuse_small_mtu(&self, result: &AddResult, ifname: &str) -> Result<(), Error> {
        let has_ipv6 = prev_result::ips_of(result, ifname).any(|ip| ip.address.is_ipv6());
        match self.link.mtu {
            Some(mtu) if mtu < IPV6_MIN_MTU && has_ipv6 => Err(Error::Config(format!(
                "mtu: {mtu} is too small for IPv6, which needs at least {IPV6_MIN_MTU}"
            ))),
            _ => Ok(()),
        }
    }
}

/// Reads every key, telling problems to `fields`. `mac_arg` is the `MAC` of `CNI_ARGS`, and
/// `duplicates` are the paths of members that the document has twice.
pub(crate) fn read(fields: &Fields<'_>, mac_arg: Option<&str>, duplicates: &[String]) -> Conf {
    let _ = NetConf::dns(fields);
    refuse_duplicates(fields, duplicates);
    let args = fields.object("args").and_then(|args| args.object("cni"));
    // What `args.cni` has goes before what the configuration has.
    let places: Vec<&Fields<'_>> = args.iter().chain([fields]).collect();
    let flag = |key| first(&places, |place| place.bool(key));
    let data_dir = fields.string("dataDir").filter(|text| !text.is_empty());
    Conf {
        sysctls: read_sysctls(fields, args.as_ref()),
        link: Settings {
            mac: read_mac(fields, args.as_ref(), mac_arg),
            promiscuous: flag("promisc").filter(|on| *on),
            mtu: read_number(fields, &places, "mtu").filter(|mtu| *mtu != 0),
            all_multicast: flag("allmulti"),
            tx_queue_length: read_number(fields, &places, "txQLen"),
        },
        data_dir: data_dir.unwrap_or(DEFAULT_DATA_DIR).into(),
    }
}

/// What the first place has that has any. All are read: what is passed over is no unknown key.
fn first<'a, T>(places: &[&Fields<'a>], read: impl Fn(&Fields<'a>) -> Option<T>) -> Option<T> {
    let found: Vec<Option<T>> = places.iter().map(|place| read(place)).collect();
    found.into_iter().flatten().next()
}

/// Which of two values is meant nobody can tell.
fn refuse_duplicates(fields: &Fields<'_>, duplicates: &[String]) {
    let place = format!("{}.", fields.path_of("sysctl")).to_lowercase();
    for path in duplicates.iter().filter(|path| path.to_lowercase().starts_with(&place)) {
        let text = "duplicated sysctl keys are not allowed";
        fields.problems().add(Severity::Invalid, path.as_str(), text);
    }
}

fn read_sysctls(fields: &Fields<'_>, args: Option<&Fields<'_>>) -> Vec<Sysctl> {
    let mut sysctls: Vec<Sysctl> = Vec::new();
    for place in [Some(fields), args].into_iter().flatten() {
        let Some(members) = place.object("sysctl") else { continue };
        for (key, value) in members.members() {
            let sysctl = Sysctl { key: key.to_owned(), value: value.to_owned() };
            let parts = sysctl.parts();
            if !parts.starts_with("net/") {
                members.invalid(key, "invalid net sysctl key: it does not begin with \"net.\"");
            }
            sysctls.retain(|other| other.parts() != parts);
            sysctls.push(sysctl);
        }
    }
    sysctls
}

/// `args.cni.mac`, else `runtimeConfig.mac`, else the `MAC` of `CNI_ARGS`, else the configuration's. An empty
/// one of `args.cni` asks for none.
fn read_mac(
    fields: &Fields<'_>,
    args: Option<&Fields<'_>>,
    mac_arg: Option<&str>,
) -> Option<HardwareAddress> {
    let of_runtime = fields.object("runtimeConfig").and_then(|object| object.string("mac"));
    let not_empty = |text: &&str| !text.is_empty();
    let named = [
        (args.map(|args| args.path_of("mac")), args.and_then(|args| args.string("mac"))),
        (Some(fields.path_of("runtimeConfig.mac")), of_runtime.filter(not_empty)),
        (None, mac_arg.filter(not_empty)),
        (Some(fields.path_of("mac")), fields.string("mac")),
    ];
    let (place, text) = named.into_iter().find_map(|(place, text)| Some((place, text?)))?;
    let mac = HardwareAddress::parse(text);
    if mac.is_none() && !text.is_empty() {
        let severity = if place.is_some() { Severity::Invalid } else { Severity::Environment };
        let place = place.unwrap_or_else(|| "MAC".into());
        fields.problems().add(severity, place, format!("{text:?} is no MAC address"));
    }
    mac
}

/// A number that a setting of a link can have, from the first place that has one.
fn read_number(fields: &Fields<'_>, places: &[&Fields<'_>], key: &'static str) -> Option<u32> {
    let (path, number) = first(places, |place| Some((place.path_of(key), place.integer(key)?)))?;
    let converted = u32::try_from(number).ok();
    if converted.is_none() {
        let text = format!("{number} is not from 0 to {}", u32::MAX);
        fields.problems().add(Severity::Invalid, path, text);
    }
    converted
}

#[cfg(test)]
mod tests;
