//! The bandwidth plugin: how fast a container may send and be sent to, kept by token buckets on the host's
//! end of its link and on an IFB, as the reference plugin has it (`plugins/meta/bandwidth`).

mod add;
mod check;
mod conf;
mod del;
mod redirect;

use cni::serve::Plugin;
use cni::{AddResult, Call, ErrorObject};
use netlink::{Link, Socket};

use crate::error::Error;
use crate::names::hex;
use crate::owner::Owner;
use crate::veth;

pub(crate) use conf::read as read_conf;

/// What links of this kind are.
const IFB: &str = "ifb";

/// The bandwidth plugin.
pub(crate) struct Bandwidth;

impl Plugin for Bandwidth {
    fn name(&self) -> &'static str {
        "bandwidth"
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
        Ok(del::gc(call)?)
    }

    /// Whether the kernel has what it takes it tells only at ADD, when it looks for modules.
    fn status(&self, call: &Call) -> Result<(), ErrorObject> {
        conf::Conf::parse(call)?;
        Ok(())
    }
}

/// The IFB of an attachment.
#[derive(Debug)]
struct Ifb {
    /// `bwp` and 12 hexadecimal digits of the SHA-512 of network and container id: the reference's.
    name: String,
    /// Where that is another interface's of the same container and network: the interface's name is
    /// hashed as well.
    own_name: String,
    owner: Owner,
}

impl Ifb {
    fn of(call: &Call) -> Self {
        let (network, container) = (&call.conf.name, &call.container_id);
        let name = |text: &str| format!("bwp{}", hex(text, 6));
        Self {
            name: name(&format!("{network}{container}")),
            own_name: name(&format!("{network}{container}{}", call.ifname)),
            owner: Owner::of(call),
        }
    }

    /// The attachment's, if there is one.
    fn find(&self, call: &Call, host: &mut Socket) -> Result<Option<Link>, Error> {
        for name in [&self.name, &self.own_name] {
            let Some(link) = host.link_by_name(name)?.filter(|it| it.kind == IFB) else { continue };
            let is_own = match &link.alias {
                Some(alias) => self.owner.has(Some(alias)),
                // An ADD of the interface was killed before it gave the IFB its alias.
                None if link.name == self.own_name => true,
                None => !is_of_another(call, host, &link)?,
            };
            if is_own {
                return Ok(Some(link));
            }
        }
        Ok(None)
    }
}

/// Whether an IFB without an alias limits another interface of the container. The reference gives none, and names its IFB
/// after the container alone; whose it is tells the link from which it gets its packets. Where the container's namespace
/// is gone, all its interfaces are.
fn is_of_another(call: &Call, host: &mut Socket, ifb: &Link) -> Result<bool, Error> {
    if veth::remaining_netns(call)?.is_none() {
        return Ok(false);
    }
    // Without the interface, or its end on the host, nothing tells that it is its own.
    let own = veth::host_end(call, host).ok().flatten();
    if let Some(own) = &own
        && host.redirects(own.index, &own.name)?.contains(&ifb.index)
    {
        return Ok(false);
    }
    let own = own.map(|it| it.index);
    for link in host.links()?.iter().filter(|it| it.kind == "veth" && Some(it.index) != own) {
        if host.redirects(link.index, &link.name)?.contains(&ifb.index) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The host's end of the container's link.
fn host_end(call: &Call, host: &mut Socket) -> Result<Link, Error> {
    veth::host_end(call, host)?.ok_or_else(|| {
        Error::Config(format!(
            "prevResult: interface {:?} has no end on this host, by which it could be limited (only a veth has one)",
            call.ifname
        ))
    })
}
