//! The tuning plugin, which stands behind the one that makes the interface: kernel parameters of the
//! container's namespace, and its interface's MAC address, MTU, flags and queue length.

mod add;
mod allow_list;
mod backup;
mod conf;
mod del;
mod settings;

use cni::serve::Plugin;
use cni::{AddResult, Call, ErrorObject};
use netlink::{Link, Socket};
use nix::sys::statvfs::{FsFlags, statvfs};

use crate::error::Error;
use crate::{prev_result, sysctl, veth};

pub(crate) use conf::read as read_conf;
use conf::{Conf, Sysctl};

/// The tuning plugin.
pub(crate) struct Tuning;

impl Plugin for Tuning {
    fn name(&self) -> &'static str {
        "tuning"
    }

    fn add(&self, call: &Call) -> Result<AddResult, ErrorObject> {
        Ok(add::add(call)?)
    }

    fn del(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(del::del(call)?)
    }

    fn check(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(check(call)?)
    }

    fn gc(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(del::gc(call)?)
    }

    fn status(&self, call: &Call) -> Result<(), ErrorObject> {
        Ok(status(call)?)
    }
}

/// Whether parameters and interface still are as ADD set them.
fn check(call: &Call) -> Result<(), Error> {
    let conf = Conf::parse(call)?;
    prev_result::required(call)?;
    let netns = veth::open_netns(call)?;
    let _entered = netns.enter()?;
    for wanted in &conf.sysctls {
        check_sysctl(wanted, &wanted.path(&call.ifname))?;
    }
    if conf.link.is_empty() {
        return Ok(());
    }
    let missing = || Error::Changed(format!("container interface {:?} is not there", call.ifname));
    let link = Socket::open()?.link_by_name(&call.ifname)?.ok_or_else(missing)?;
    match conf.link.difference(&link) {
        Some(text) => Err(Error::Changed(format!("container interface {:?}: {text}", call.ifname))),
        None => Ok(()),
    }
}

fn check_sysctl(wanted: &Sysctl, path: &str) -> Result<(), Error> {
    let found = match sysctl::read(path) {
        // What can only be written (`route/flush`) has no value.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return Ok(()),
        result => result.map_err(|error| {
            Error::Changed(format!("sysctl {} cannot be read any more: {error}", wanted.key))
        })?,
    };
    if wanted.is(&found) {
        return Ok(());
    }
    let Sysctl { key, value } = wanted;
    Err(Error::Changed(format!("sysctl {key} is {found:?}, ADD wrote {value:?}")))
}

/// Whether an ADD could succeed.
fn status(call: &Call) -> Result<(), Error> {
    let conf = Conf::parse(call)?;
    if !conf.link.is_empty() {
        Socket::open().map_err(|error| Error::NotAvailable(error.to_string()))?;
        if let Err(error) = ipam::host_local::usable(&conf.data_dir) {
            return Err(Error::NotAvailable(ErrorObject::from_error(0, &error).msg));
        }
    }
    if conf.sysctls.is_empty() {
        return Ok(());
    }
    allow_list::check(&conf.sysctls)
        .map_err(|error| Error::NotAvailable(ErrorObject::from_error(0, &error).msg))?;
    match statvfs("/proc/sys") {
        Ok(mount) if mount.flags().contains(FsFlags::ST_RDONLY) => {
            Err(Error::NotAvailable("/proc/sys is mounted read-only".into()))
        }
        _ => Ok(()),
    }
}

/// The container's interface, which the calling thread is beside.
fn link(socket: &mut Socket, ifname: &str) -> Result<Link, Error> {
    socket.link_by_name(ifname)?.ok_or_else(|| {
        Error::Config(format!("prevResult: the container has no interface {ifname:?}"))
    })
}
