//! The sbr plugin, which stands behind the one that makes the interface: what the container sends from
//! an address of this interface goes by routes of this interface.

mod add;
mod check;
mod conf;
mod del;
mod plan;

use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;

use cni::serve::Plugin;
use cni::{AddResult, Call, ErrorObject};
use ipnetwork::IpNetwork;
use netlink::Socket;
use netns::Netns;
use runner::Lock;

use crate::error::Error;
use crate::prev_result;

use conf::Conf;
pub(crate) use conf::read as read_conf;

/// How long another attachment of the container may take.
const LOCK_WAIT: Duration = Duration::from_secs(30);

/// The sbr plugin.
pub(crate) struct Sbr;

impl Plugin for Sbr {
    fn name(&self) -> &'static str {
        "sbr"
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

    /// Rules and routes go with the container's namespace: there is nothing on the host.
    fn gc(&self, _call: &Call) -> Result<(), ErrorObject> {
        Ok(())
    }

    fn status(&self, call: &Call) -> Result<(), ErrorObject> {
        Conf::parse(call)?;
        let rules = Socket::open().and_then(|mut socket| socket.rules());
        rules.map_err(|error| {
            let problem = ErrorObject::from_error(0, &error).msg;
            let text = format!("sbr needs rules (CONFIG_IP_MULTIPLE_TABLES): {problem}");
            Error::NotAvailable(text)
        })?;
        Ok(())
    }
}

/// An address of the interface, and the way out for what is sent from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Source {
    cidr: IpNetwork,
    gateway: Option<std::net::IpAddr>,
}

impl Source {
    /// The address alone.
    fn host(&self) -> IpNetwork {
        IpNetwork::from(self.cidr.ip())
    }
}

/// The addresses that a result gives the interface.
fn sources(call: &Call, result: &AddResult, conf: &Conf) -> Result<Vec<Source>, Error> {
    let mut sources = Vec::new();
    for ip in prev_result::ips_of(result, &call.ifname) {
        let gateway = conf.gateway(ip.address.is_ipv4()).or(ip.gateway);
        if let Some(other) = gateway.filter(|it| it.is_ipv4() != ip.address.is_ipv4()) {
            return Err(Error::Config(format!(
                "prevResult: gateway {other} of address {} is of another family",
                ip.address
            )));
        }
        sources.push(Source { cidr: ip.address, gateway });
    }
    if sources.is_empty() {
        let text = format!("prevResult: it has no address of interface {:?}", call.ifname);
        return Err(Error::Config(text));
    }
    Ok(sources)
}

/// Has one attachment of a container at a time choose its tables, also beside the reference plugin, which
/// takes the same lock. It is given back with what is returned and with `netns`.
fn lock(netns: &Netns) -> Result<Lock, Error> {
    let failed = |source| Error::File { what: "lock".into(), path: netns.path().into(), source };
    let file = File::from(netns.as_fd().try_clone_to_owned().map_err(failed)?);
    let lock = Lock::new(file, netns.path(), LOCK_WAIT);
    lock.acquire().map_err(Error::Lock)?;
    Ok(lock)
}
