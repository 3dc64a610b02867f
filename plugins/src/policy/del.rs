//! DEL and GC: addresses pass the gate no more before anybody else can get them.

use std::net::IpAddr;

use attachment::{Attachment, Key, Request};
use cni::Call;

use super::agent::{self, Silence};
use super::conf::Conf;
use super::{files, gate, key};
use crate::error::{Error, warn};

/// Forgets the attachment of a call.
pub(super) fn del(call: &Call) -> Result<(), Error> {
    let conf = Conf::parse_leniently(call);
    let key = key(call);
    let request = Request::Detach(key.clone());
    let Err(why) = agent::ask(&request, conf.timeout) else { return Ok(()) };
    match files().get(&key.container_id) {
        Ok(None) => return Ok(()),
        Ok(Some(held)) if held.ifname != key.ifname => return Ok(()),
        Ok(Some(held)) => forget(&held)?,
        // What it says nobody can tell; policyd, too, leaves it out.
        Err(attachment::Error::Damaged { .. }) => files().remove(&key.container_id)?,
        Err(error) => return Err(error.into()),
    }
    warn(&format!("the pod's attachment was removed without policyd: {why}"));
    if let Silence::Away(_) = why {
        // It reads the files once, when it starts: has it done so just before ours went?
        let _ = agent::ask(&request, conf.timeout);
    }
    Ok(())
}

/// Forgets what belongs to no valid attachment of the call's network.
pub(super) fn gc(call: &Call) -> Result<(), Error> {
    let conf = Conf::parse_leniently(call);
    let valid = call.conf.valid_attachments()?.into_iter();
    let valid: Vec<Key> =
        valid.map(|it| Key { container_id: it.container_id, ifname: it.ifname }).collect();
    let network = call.conf.name.clone();
    let request = Request::Gc { network: network.clone(), valid: valid.clone() };
    let Err(why) = agent::ask(&request, conf.timeout) else { return Ok(()) };
    let (held, problems) = files().list()?;
    for problem in problems {
        warn(&format!("left out: {}", cni::ErrorObject::from_error(0, &problem).msg));
    }
    let garbage = held.iter().filter(|it| it.network == network && !valid.contains(&it.key()));
    let errors: Vec<Error> = garbage.filter_map(|it| forget(it).err()).collect();
    Error::of_teardown(errors)?;
    if let Silence::Away(_) = why {
        let _ = agent::ask(&request, conf.timeout);
    }
    Ok(())
}

/// Does what policyd would do. Addresses and interfaces that another container has by now are that
/// one's.
fn forget(attachment: &Attachment) -> Result<(), Error> {
    let (held, _) = files().list()?;
    let others = || held.iter().filter(|it| it.container_id != attachment.container_id);
    let is_kept = |address: &&IpAddr| others().any(|it| it.addresses.contains(address));
    gate::close(attachment.addresses.iter().filter(|address| !is_kept(address)))?;
    let interface = attachment.host_interface.as_ref().map(|it| &it.name);
    let is_others = |name: &&String| {
        others().filter_map(|it| it.host_interface.as_ref()).any(|it| it.name == **name)
    };
    if let Some(name) = interface.filter(|name| !is_others(name)) {
        gate::open_interface(name)?;
    }
    Ok(files().remove(&attachment.container_id)?)
}
