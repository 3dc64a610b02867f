//! DEL and GC.

use std::collections::HashSet;
use std::path::Path;

use cni::Call;
use netlink::Socket;
use netns::Netns;
use nix::errno::Errno;

use super::backup::{Attachment, Backup, BackupFile};
use super::conf::Conf;
use crate::error::{Error, warn};
use crate::veth;

/// Sets the interface back to what it was like. What is gone needs nothing, and keeps nothing.
pub(super) fn del(call: &Call) -> Result<(), Error> {
    let conf = Conf::parse_leniently(call);
    let file = BackupFile::of(&conf.data_dir, &call.container_id, &call.ifname);
    if let Some(bytes) = file.read()? {
        match Backup::decode(&bytes) {
            Some(backup) => restore(call, &backup)?,
            None => warn(&format!("{} is damaged, and tells nothing", file.path().display())),
        }
    }
    file.remove()
}

fn restore(call: &Call, backup: &Backup) -> Result<(), Error> {
    let Some(netns) = veth::remaining_netns(call)? else { return Ok(()) };
    let _entered = netns.enter()?;
    let mut socket = Socket::open()?;
    let Some(link) = socket.link_by_name(&call.ifname)? else { return Ok(()) };
    match socket.execute(&backup.before.requests(link.index, &link.name)) {
        // It went meanwhile.
        Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(()),
        result => Ok(result?),
    }
}

/// Removes the files of this network's attachments that are not valid and have gone. A file of the
/// reference plugin does not tell its network, so it stays; so does the file of an interface that is
/// still there, which its DEL will need.
pub(super) fn gc(call: &Call) -> Result<(), Error> {
    let conf = Conf::parse_leniently(call);
    let valid: HashSet<_> = call
        .conf
        .valid_attachments()?
        .iter()
        .map(|it| BackupFile::of(&conf.data_dir, &it.container_id, &it.ifname))
        .map(|file| file.path().to_owned())
        .collect();
    let mut errors = Vec::new();
    for file in BackupFile::list(&conf.data_dir)? {
        if !valid.contains(file.path()) {
            errors.extend(collect(&file, &call.conf.name).err());
        }
    }
    Error::of_teardown(errors)
}

fn collect(file: &BackupFile, network: &str) -> Result<(), Error> {
    let bytes = match file.read()? {
        None => file.read_draft()?,
        held => held,
    };
    let backup = bytes.as_deref().and_then(Backup::decode);
    let attachment = backup.and_then(|backup| backup.attachment);
    let Some(attachment) = attachment.filter(|it| it.network == network) else { return Ok(()) };
    if is_there(&attachment)? {
        let path = file.path().display();
        warn(&format!("{path} stays: its container is not valid, but still there"));
        return Ok(());
    }
    file.remove()
}

/// Whether the interface is where it was, or another in its place.
fn is_there(attachment: &Attachment) -> Result<bool, Error> {
    let netns = match Netns::open(Path::new(&attachment.netns)) {
        Err(netns::Error::Missing(_) | netns::Error::NotANamespace { .. }) => return Ok(false),
        result => result?,
    };
    let _entered = netns.enter()?;
    Ok(Socket::open()?.link_by_name(&attachment.ifname)?.is_some())
}
