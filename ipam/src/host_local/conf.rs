//! host-local's part of the network configuration: pure.

use std::net::IpAddr;
use std::path::PathBuf;

use cni::args::Args;
use cni::decode::{Element, Fields, Problems, Severity};
use cni::{Call, Route, Version};
use ipnetwork::IpNetwork;

use crate::Error;
use crate::allocator::Pool;
use crate::range::{AddressRange, RangeProblem, RangeSet};
use crate::store::{DEFAULT_DATA_DIR, Options};

/// What host-local is asked to do.
#[derive(Debug, Default)]
pub(crate) struct Conf {
    /// One address is leased from each; runtime ranges first, then the single range of old
    /// configurations, then `ranges`. The index names the set on disk.
    pub(crate) sets: Vec<RangeSet>,
    /// Addresses that are never leased.
    pub(crate) exclude: Vec<IpNetwork>,
    /// Addresses to lease, each once.
    pub(crate) requested: Vec<IpAddr>,
    /// Routes for the result.
    pub(crate) routes: Vec<Route>,
    /// Where the result's name service is read from.
    pub(crate) resolv_conf: Option<PathBuf>,
    /// Whether STATUS fails when a set has no free address.
    pub(crate) status_on_exhaustion: bool,
}

impl Conf {
    /// Reads the configuration and `CNI_ARGS` of a call.
    ///
    /// # Errors
    /// The first problem of either.
    pub(crate) fn of(call: &Call) -> Result<Self, Error> {
        let problems = Problems::default();
        let mut conf = Self::read(&Fields::root(&call.conf.raw, &problems));
        problems.into_result()?;
        let args = Args::parse(&call.args, &["IP"])?;
        if let Some(text) = args.get("IP").filter(|text| !text.is_empty()) {
            let wrong = || cni::Error::Args(format!("IP={text}: not an IP address"));
            conf.requested.insert(0, parse_request(text).ok_or_else(wrong)?);
        }
        let mut once = Vec::new();
        conf.requested.retain(|address| {
            let is_new = !once.contains(address);
            once.push(*address);
            is_new
        });
        Ok(conf)
    }

    /// Reads the configuration, telling every problem to `root`'s collection.
    pub(crate) fn read(root: &Fields<'_>) -> Self {
        let mut conf = Self::default();
        let Some(ipam) = root.object("ipam") else {
            root.invalid("ipam", "IPAM config missing 'ipam' key");
            return conf;
        };
        let mut sets = Sets::new(root.problems());
        if let Some(runtime) = root.object("runtimeConfig") {
            runtime.array("ipRanges").iter().flatten().for_each(|set| sets.read_list(set));
            conf.requested = requests(&runtime);
        }
        sets.read_single(&ipam);
        ipam.array("ranges").iter().flatten().for_each(|set| sets.read_list(set));
        conf.exclude = exclusions(&ipam);
        sets.check_together(root.string("cniVersion").and_then(Version::parse));
        sets.check_rest(&conf.exclude);
        conf.sets = sets.read.into_iter().map(|(_, set)| set).collect();
        if let Some(cni) = root.object("args").and_then(|args| args.object("cni")) {
            let mut requested = requests(&cni);
            requested.append(&mut conf.requested);
            conf.requested = requested;
        }
        conf.routes = routes(&ipam);
        conf.resolv_conf = path(&ipam, "resolvConf");
        conf.status_on_exhaustion = ipam.bool("statusOnExhaustion").unwrap_or(false);
        let _ = (path(&ipam, "dataDir"), ipam.bool("reclaimAfterReboot"), ipam.string("type"));
        ipam.finish();
        conf
    }
}

/// Which store a call is about. Nothing else of the configuration is read, so that DEL and GC can
/// clean up after a configuration that became wrong.
///
/// # Errors
/// There is no `ipam`, or its `dataDir` is not a string.
pub(crate) fn store_options(call: &Call) -> Result<Options, Error> {
    let problems = Problems::default();
    let root = Fields::root(&call.conf.raw, &problems);
    let (mut data_dir, mut reclaims) = (None, None);
    match root.object("ipam") {
        None => root.invalid("ipam", "IPAM config missing 'ipam' key"),
        Some(ipam) => {
            data_dir = path(&ipam, "dataDir");
            reclaims = ipam.value("reclaimAfterReboot").and_then(serde_json::Value::as_bool);
        }
    }
    problems.into_result()?;
    let data_dir = data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into());
    let options = Options::new(&data_dir, &call.conf.name);
    Ok(Options { reclaim_after_reboot: reclaims.unwrap_or(false), ..options })
}

fn path(fields: &Fields<'_>, key: &'static str) -> Option<PathBuf> {
    fields.string(key).filter(|text| !text.is_empty()).map(PathBuf::from)
}

/// An address, or an address with a prefix length, which is ignored: the range's counts.
fn parse_request(text: &str) -> Option<IpAddr> {
    cni::parse_address(text).or_else(|| cni::parse_cidr(text).map(|cidr| cidr.ip()))
}

fn requests(fields: &Fields<'_>) -> Vec<IpAddr> {
    let read = |element: &Element<'_>| {
        let text = element.string()?;
        let address = parse_request(text);
        if address.is_none() {
            element.invalid(format!("cannot understand ip: {text:?} is not an IP address"));
        }
        address
    };
    fields.array("ips").iter().flatten().filter_map(read).collect()
}

fn exclusions(ipam: &Fields<'_>) -> Vec<IpNetwork> {
    let read = |element: &Element<'_>| {
        let text = element.string()?;
        let address = cni::parse_address(text).map(IpNetwork::from);
        let network = address.or_else(|| cni::parse_cidr(text));
        if network.is_none() {
            element.invalid(format!("{text:?} is neither an IP address nor in CIDR notation"));
        }
        network
    };
    ipam.array("exclude").iter().flatten().filter_map(read).collect()
}

/// `routes` of an `ipam` object.
pub(crate) fn routes(ipam: &Fields<'_>) -> Vec<Route> {
    let read = |element: &Element<'_>| {
        let fields = element.object()?;
        let route = Route::read(&fields);
        fields.finish();
        route
    };
    ipam.array("routes").iter().flatten().filter_map(read).collect()
}

/// The range sets read so far, each with its JSON path.
struct Sets<'a> {
    problems: &'a Problems,
    read: Vec<(String, RangeSet)>,
    /// How many there are, wrong ones included: the index that messages name.
    count: usize,
}

impl<'a> Sets<'a> {
    const fn new(problems: &'a Problems) -> Self {
        Self { problems, read: Vec::new(), count: 0 }
    }

    /// The single range of old configurations: keys of `ipam` itself.
    fn read_single(&mut self, ipam: &Fields<'_>) {
        if ipam.has("subnet") {
            let range = read_range(ipam, self.count);
            return self.add(ipam.path_of("subnet"), range.map(|range| vec![range]));
        }
        for key in ["rangeStart", "rangeEnd", "gateway"] {
            if ipam.has(key) {
                let text = "no effect without ipam.subnet (each of ipam.ranges has its own)";
                self.problems.add(Severity::Unknown, ipam.path_of(key), text);
            }
        }
    }

    fn read_list(&mut self, list: &Element<'_>) {
        let read = |element: &Element<'_>| {
            let fields = element.object()?;
            let range = read_range(&fields, self.count);
            fields.finish();
            range
        };
        // First all, so that the problems of each are told; then none if one is wrong.
        let ranges: Option<Vec<_>> = list.array().map(|list| list.iter().map(read).collect());
        let ranges = ranges.and_then(|ranges| ranges.into_iter().collect());
        self.add(list.path().to_owned(), ranges);
    }

    /// Counts a set; `None` is one whose problems are told already.
    fn add(&mut self, path: String, ranges: Option<Vec<AddressRange>>) {
        match ranges.map(RangeSet::new) {
            Some(Ok(set)) => self.read.push((path, set)),
            Some(Err(problem)) => {
                let text = format!("invalid range set {}: {problem}", self.count);
                self.problems.add(Severity::Invalid, path, text);
            }
            None => {}
        }
        self.count += 1;
    }

    /// What the sets must be together.
    fn check_together(&self, version: Option<Version>) {
        let wrong = |path: &str, text: String| self.problems.add(Severity::Invalid, path, text);
        if self.count == 0 {
            wrong("ipam.ranges", "no IP ranges specified".to_owned());
        }
        let old = version.filter(|version| *version < Version::V0_3_0);
        for ipv4 in [true, false] {
            let mut family = self.read.iter().filter(|(_, set)| set.is_ipv4() == ipv4);
            if let (Some(version), Some((path, _))) = (old, family.nth(1)) {
                wrong(
                    path,
                    format!(
                        "CNI version {version} does not support more than 1 address per family"
                    ),
                );
            }
        }
        for (index, (_, one)) in self.read.iter().enumerate() {
            for (other, (path, two)) in self.read.iter().enumerate().skip(index + 1) {
                if one.overlaps(two) {
                    wrong(path, format!("range set {index} overlaps with {other}"));
                }
            }
        }
    }

    /// Whether each set has anything to lease.
    fn check_rest(&self, exclude: &[IpNetwork]) {
        for (path, set) in &self.read {
            if Pool::new(set, exclude).size() == 0 {
                let text = format!(
                    "range set {set} has no address to lease: all are gateway or in ipam.exclude"
                );
                self.problems.add(Severity::Invalid, path, text);
            }
        }
    }
}

/// The gateway of an address or a subnet. It may lie elsewhere (169.254.1.1), but no route leads
/// through one of the other family.
pub(crate) fn gateway(fields: &Fields<'_>, network: Option<IpNetwork>) -> Option<IpAddr> {
    let gateway = fields.address("gateway")?;
    if let Some(network) = network.filter(|network| network.is_ipv4() != gateway.is_ipv4()) {
        fields.invalid("gateway", format!("{gateway} is of another family than {network}"));
    }
    Some(gateway)
}

/// One range of set `set`.
fn read_range(fields: &Fields<'_>, set: usize) -> Option<AddressRange> {
    let subnet = fields.cidr("subnet");
    if !fields.has("subnet") {
        fields.invalid("subnet", format!("invalid range set {set}: subnet is missing"));
    }
    let first = fields.address("rangeStart");
    let last = fields.address("rangeEnd");
    let gateway = gateway(fields, subnet);
    match AddressRange::new(subnet?, first, last, gateway) {
        Ok(range) => Some(range),
        Err(problem) => {
            let key = match problem {
                RangeProblem::StartOutside { .. } => "rangeStart",
                RangeProblem::EndOutside { .. } => "rangeEnd",
                _ => "subnet",
            };
            fields.invalid(key, format!("invalid range set {set}: {problem}"));
            None
        }
    }
}

#[cfg(test)]
#[path = "conf_tests.rs"]
mod tests;
