//! The loopback plugin: brings up the container's `lo`, whatever `CNI_IFNAME` says.

use cni::decode::{Fields, Problems};
use cni::serve::Plugin;
use cni::{AddResult, Call, ErrorObject, Interface, IpConfig};
use netlink::{Address, Request, Socket};

use crate::error::Error;
use crate::veth;

const NAME: &str = "lo";
/// Every namespace has its loopback as its first link (kernel: `LOOPBACK_IFINDEX`).
const INDEX: u32 = 1;

/// The loopback plugin.
pub(crate) struct Loopback;

impl Plugin for Loopback {
    fn name(&self) -> &'static str {
        "loopback"
    }

    fn add(&self, call: &Call) -> Result<AddResult, ErrorObject> {
        Ok(add(call)?)
    }

    fn del(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(del(call)?)
    }

    fn check(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(check(call)?)
    }

    fn gc(&self, _call: &Call) -> Result<(), ErrorObject> {
        Ok(())
    }

    fn status(&self, _call: &Call) -> Result<(), ErrorObject> {
        Socket::open().map_err(|error| Error::NotAvailable(error.to_string()))?;
        Ok(())
    }
}

fn add(call: &Call) -> Result<AddResult, Error> {
    read_conf(call)?;
    let prev_result = call.conf.prev_result()?;
    let netns = veth::open_netns(call)?;
    let addresses = {
        let _entered = netns.enter()?;
        let mut socket = Socket::open()?;
        refuse_foreign(&socket.addresses(INDEX, NAME)?)?;
        socket.execute(&[Request::set_up(INDEX, NAME)])?;
        socket.addresses(INDEX, NAME)?
    };
    Ok(prev_result.unwrap_or_else(|| result(call, &addresses)))
}

/// Refuses a loopback that is used for something else, while it still is as it was.
fn refuse_foreign(addresses: &[Address]) -> Result<(), Error> {
    match addresses.iter().find(|address| !address.cidr.ip().is_loopback()) {
        None => Ok(()),
        Some(other) => Err(Error::Conflict(format!(
            "loopback interface found with non-loopback address {:?}",
            other.cidr.ip().to_string()
        ))),
    }
}

/// The keys that any configuration may have.
fn read_conf(call: &Call) -> Result<(), Error> {
    let problems = Problems::default();
    let fields = Fields::root(&call.conf.raw, &problems);
    let _ = cni::NetConf::dns(&fields);
    drop(fields);
    Ok(problems.into_result()?)
}

fn result(call: &Call, addresses: &[Address]) -> AddResult {
    let sandbox = call.netns.as_deref().map(|path| path.display().to_string());
    let first = |is_ipv4: bool| {
        let address = addresses.iter().find(|address| address.cidr.is_ipv4() == is_ipv4)?;
        Some(IpConfig { interface: Some(0), address: address.cidr, gateway: None })
    };
    AddResult {
        interfaces: vec![Interface {
            name: NAME.into(),
            mac: "00:00:00:00:00:00".into(),
            sandbox: sandbox.unwrap_or_default(),
            ..Interface::default()
        }],
        ips: [first(true), first(false)].into_iter().flatten().collect(),
        ..AddResult::default()
    }
}

fn del(call: &Call) -> Result<(), Error> {
    let Some(netns) = veth::remaining_netns(call)? else { return Ok(()) };
    let _entered = netns.enter()?;
    Socket::open()?.execute(&[Request::set_down(INDEX, NAME)])?;
    Ok(())
}

fn check(call: &Call) -> Result<(), Error> {
    let netns = veth::open_netns(call)?;
    let _entered = netns.enter()?;
    let link = Socket::open()?.link_by_index(INDEX)?;
    match link {
        Some(link) if link.is_up => Ok(()),
        _ => Err(Error::Changed("loopback interface is down".into())),
    }
}
