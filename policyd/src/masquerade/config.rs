//! ip-masq-agent's configuration file.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::{Error, PortRanges, Problem};
use crate::model::parse_cidr;

/// RFC 1918.
const PRIVATE: [&str; 3] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];
/// Shared address space (RFC 6598), protocol assignments (6890), documentation (5737), 6to4 anycast
/// (7526), benchmarks (6815) and the former class E (5735).
const RESERVED: [&str; 8] = [
    "100.64.0.0/10",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "240.0.0.0/4",
];
const DEFAULT_CIDR_LIMIT: usize = 64;
const DEFAULT_RESYNC_INTERVAL: Duration = Duration::from_secs(60);

/// What the daemon's flags say of masquerading; ip-masq-agent's are named alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Whether all of IPv4's reserved ranges are left alone by default, not the private ones only
    /// (`nomasq-all-reserved-ranges`).
    pub spare_reserved_ranges: bool,
    /// Whether IPv6 is masqueraded too (`enable-ipv6`).
    pub ipv6: bool,
    /// Whether source ports are chosen at random (`random-fully`). Otherwise the kernel keeps them
    /// where it can, and connections that begin at once may be given the same one.
    pub random_fully: bool,
    /// Which source ports TCP, UDP and SCTP get (`to-ports`).
    pub to_ports: PortRanges,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            spare_reserved_ranges: false,
            ipv6: false,
            random_fully: true,
            to_ports: PortRanges::default(),
        }
    }
}

/// What is masqueraded: all traffic but that to these destinations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `nonMasqueradeCIDRs`, of both families.
    pub non_masquerade: Vec<IpNetwork>,
    /// `masqLinkLocal`: whether 169.254.0.0/16 is masqueraded.
    pub masquerade_link_local: bool,
    /// `masqLinkLocalIPv6`: whether fe80::/10 is masqueraded.
    pub masquerade_link_local_ipv6: bool,
    /// `resyncInterval`: how often the kernel is compared with this.
    pub resync_interval: Duration,
}

/// A configuration, and what in its file nobody knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadConfig {
    /// The configuration.
    pub config: Config,
    /// Keys that mean nothing.
    pub unknown_keys: Vec<String>,
}

impl Config {
    /// What holds where nothing is said, as when there is no file.
    #[must_use]
    pub fn default_for(options: &Options) -> Self {
        let reserved = RESERVED.iter().filter(|_| options.spare_reserved_ranges);
        Self {
            non_masquerade: PRIVATE
                .iter()
                .chain(reserved)
                .filter_map(|it| parse_cidr(it))
                .collect(),
            masquerade_link_local: false,
            masquerade_link_local_ipv6: false,
            resync_interval: DEFAULT_RESYNC_INTERVAL,
        }
    }

    /// Reads the text of `file`, which is YAML or JSON. Where it says nothing, defaults hold.
    ///
    /// # Errors
    /// [`Error::Syntax`], and [`Error::Field`] for the first field that is wrong.
    pub fn read(file: &Path, text: &str, options: &Options) -> Result<ReadConfig, Error> {
        let mut config = Self::default_for(options);
        let mut unknown_keys = Vec::new();
        let wrong = |field: &str, problem| Error::Field {
            file: file.to_owned(),
            field: field.to_owned(),
            problem,
        };
        if text.trim().is_empty() {
            return Ok(ReadConfig { config, unknown_keys });
        }
        let document: Value = serde_saphyr::from_str(text)
            .map_err(|source| Error::Syntax { file: file.to_owned(), source: Box::new(source) })?;
        let fields = match &document {
            Value::Null => return Ok(ReadConfig { config, unknown_keys }),
            Value::Object(fields) => fields,
            other => return Err(wrong("the document", mistyped(other, "an object"))),
        };
        let mut limit = DEFAULT_CIDR_LIMIT;
        // What is null counts as not given, as it does to Go.
        for (key, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
            // Go takes keys in any case.
            let set = match key.to_ascii_lowercase().as_str() {
                "nonmasqueradecidrs" => cidrs(value, options).map(|it| config.non_masquerade = it),
                "cidrlimit" => count(value).map(|it| limit = it),
                "masqlinklocal" => boolean(value).map(|it| config.masquerade_link_local = it),
                "masqlinklocalipv6" => {
                    boolean(value).map(|it| config.masquerade_link_local_ipv6 = it)
                }
                "resyncinterval" => span(value).map(|it| config.resync_interval = it),
                _ => {
                    unknown_keys.push(key.clone());
                    Ok(())
                }
            };
            set.map_err(|(below, problem)| wrong(&format!("{key}{below}"), problem))?;
        }
        match config.non_masquerade.len() {
            count if count > limit => {
                Err(wrong("nonMasqueradeCIDRs", Problem::TooMany { count, limit }))
            }
            _ => Ok(ReadConfig { config, unknown_keys }),
        }
    }
}

/// A problem, and where below the field it is.
type Wrong = (String, Problem);

fn mistyped(value: &Value, wanted: &'static str) -> Problem {
    Problem::Type { found: value.to_string(), wanted }
}

fn cidrs(value: &Value, options: &Options) -> Result<Vec<IpNetwork>, Wrong> {
    let entries =
        value.as_array().ok_or_else(|| (String::new(), mistyped(value, "a list of CIDRs")))?;
    let one = |(index, entry): (usize, &Value)| {
        cidr(entry, options).map_err(|problem| (format!("[{index}]"), problem))
    };
    entries.iter().enumerate().map(one).collect()
}

fn cidr(value: &Value, options: &Options) -> Result<IpNetwork, Problem> {
    let text = value.as_str().ok_or_else(|| mistyped(value, "a CIDR (a text)"))?;
    let network = parse_cidr(text).ok_or_else(|| Problem::Cidr(text.to_owned()))?;
    let address = text.split('/').next().and_then(|address| address.parse::<IpAddr>().ok());
    if address.is_none_or(|address| address.to_canonical() != network.ip()) {
        let (given, aligned) = (text.to_owned(), network.to_string());
        return Err(Problem::Unaligned { given, aligned });
    }
    if network.is_ipv6() && !options.ipv6 {
        return Err(Problem::Ipv6Disabled(text.to_owned()));
    }
    Ok(network)
}

fn count(value: &Value) -> Result<usize, Wrong> {
    let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
    count.ok_or_else(|| (String::new(), mistyped(value, "a number of CIDRs")))
}

fn boolean(value: &Value) -> Result<bool, Wrong> {
    value.as_bool().ok_or_else(|| (String::new(), mistyped(value, "true or false")))
}

fn span(value: &Value) -> Result<Duration, Wrong> {
    let text = value
        .as_str()
        .ok_or_else(|| (String::new(), mistyped(value, "a span of time (a text such as 60s)")))?;
    let span = cluster::parse_duration(text).filter(|it| !it.is_zero());
    span.ok_or_else(|| (String::new(), Problem::Duration(text.to_owned())))
}

#[cfg(test)]
mod tests;
