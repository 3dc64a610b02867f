//! The firewall plugin: containers' packets pass where the node drops what it forwards, by iptables in the reference's
//! layout (`plugins/meta/firewall`), by nf_tables, or by firewalld; and bridges' containers are kept apart.

mod add;
mod bus;
mod check;
mod conf;
mod del;
mod firewalld;
mod iptables;
mod isolation;
mod nftables;
mod plan;

use std::net::IpAddr;

use cni::serve::Plugin;
use cni::{AddResult, Call, ErrorObject};

use crate::backend::Backend;
use crate::error::Error;
use crate::iptables::{FAMILIES, FILTER};
use crate::kernel_tables::KernelTables;

pub(crate) use bus::BusError;
pub(crate) use conf::read as read_conf;
use conf::{Conf, IngressPolicy, Means};

/// What errors call it.
const WHAT: &str = "firewall";

/// The firewall plugin.
pub(crate) struct Firewall;

impl Plugin for Firewall {
    fn name(&self) -> &'static str {
        "firewall"
    }

    fn add(&self, call: &Call) -> Result<AddResult, ErrorObject> {
        Ok(add::add(call)?)
    }

    fn del(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(del::del(call)?)
    }

    fn check(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(check::check(call)?)
    }

    fn gc(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(del::collect_garbage(call)?)
    }

    fn status(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(status(call)?)
    }
}

/// Whether an ADD could ever succeed.
fn status(call: &Call) -> Result<(), Error> {
    match Conf::parse(call)?.backend {
        Some(Means::Firewalld) => firewalld::available(),
        Some(Means::Rules(backend)) => backend.is_available(WHAT),
        None => by_rules(&mut KernelTables::default()).is_available(WHAT),
    }
}

/// What an attachment shall have.
#[derive(Debug)]
struct Wanted {
    conf: Conf,
    /// The result of the plugins before.
    result: AddResult,
    /// All that the plugins before gave, as the reference takes them.
    addresses: Vec<IpAddr>,
    /// The bridge that is kept apart from others.
    bridge: Option<String>,
}

impl Wanted {
    /// By a configuration, and the result of the plugins before.
    fn new(conf: Conf, result: AddResult) -> Result<Self, Error> {
        let bridge = match conf.ingress_policy {
            IngressPolicy::Open => None,
            policy => Some(bridge(&result, policy)?),
        };
        Ok(Self { conf, addresses: addresses(&result), bridge, result })
    }
}

/// The addresses of a result.
fn addresses(result: &AddResult) -> Vec<IpAddr> {
    result.ips.iter().map(|ip| ip.address.ip()).collect()
}

/// The bridge of a result is the first of its interfaces (reference behaviour).
fn bridge(result: &AddResult, policy: IngressPolicy) -> Result<String, Error> {
    let refuse = |problem: String| {
        let text =
            format!("ingressPolicy: {policy} is for a bridge, which prevResult must begin with");
        Error::Config(format!("{text}: {problem}"))
    };
    let first = result.interfaces.first().ok_or_else(|| refuse("it has no interface".into()))?;
    // A plus sign would stand for all names that begin so.
    match cni::ifname_problem(&first.name) {
        Some(problem) => Err(refuse(format!("{:?}: {problem}", first.name))),
        None if !crate::iptables::is_chain(&first.name) || first.name.ends_with('+') => {
            Err(refuse(format!("{:?} cannot be named in a rule", first.name)))
        }
        None if !first.sandbox.is_empty() => {
            Err(refuse(format!("{:?} is in {}", first.name, first.sandbox)))
        }
        None => Ok(first.name.clone()),
    }
}

/// Whether table filter of one family has such a chain, or may.
fn may_have(kernel: &mut KernelTables, chain: &str) -> bool {
    let mut places = FAMILIES.map(|it| kernel.places(it, FILTER, chain)).into_iter();
    places.any(|it| it.nftables || it.legacy)
}

/// By what rules are made where the configuration leaves the choice to podwire: by iptables where the node's own
/// programs are there and have ever been asked about what is forwarded, so that what they drop is what is opened.
fn by_rules(kernel: &mut KernelTables) -> Backend {
    let has_programs = crate::iptables::find().is_some();
    let is_used = may_have(kernel, iptables::FORWARD);
    // A kernel that cannot be asked will refuse the rules, and tell more.
    let mut has_nftables = || kernel.has_nftables().unwrap_or(true);
    if (has_programs && is_used) || !has_nftables() { Backend::Iptables } else { Backend::Nftables }
}
