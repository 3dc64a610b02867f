//! ADD.

use cni::{AddResult, Call};
use netlink::{Link, Socket};

use super::backup::{Attachment, Backup, BackupFile};
use super::conf::{Conf, Sysctl};
use super::settings::Settings;
use super::{allow_list, link};
use crate::error::Error;
use crate::rollback::Rollback;
use crate::{prev_result, sysctl, veth};

/// Tunes the container's namespace and interface; the result is that of the plugins before, with what
/// was changed of the interface.
pub(super) fn add(call: &Call) -> Result<AddResult, Error> {
    let conf = Conf::parse(call)?;
    allow_list::check(&conf.sysctls)?;
    let mut result = prev_result::required(call)?;
    conf.refuse_small_mtu(&result, &call.ifname)?;
    let netns = veth::open_netns(call)?;
    let _entered = netns.enter()?;
    // Undone before the namespace is left.
    let mut rollback = Rollback::default();
    if conf.link.is_empty() {
        write_sysctls(&conf.sysctls, &call.ifname, &mut rollback)?;
    } else {
        let mut socket = Socket::open()?;
        let link = link(&mut socket, &call.ifname)?;
        let before = Settings::of(&link, &conf.link);
        back_up(call, &conf, before, &mut rollback)?;
        write_sysctls(&conf.sysctls, &call.ifname, &mut rollback)?;
        set(&mut socket, &link, &conf.link, before, &mut rollback)?;
        update(&mut result, &call.ifname, &conf.link);
    }
    // A version that cannot express the result is an error before it is too late.
    result.to_json(call.conf.version)?;
    rollback.commit();
    Ok(result)
}

/// Keeps what the interface was like for DEL, also for that of an ADD which is killed from here on.
fn back_up<'a>(
    call: &Call,
    conf: &Conf,
    before: Settings,
    rollback: &mut Rollback<'a>,
) -> Result<(), Error> {
    let file = BackupFile::of(&conf.data_dir, &call.container_id, &call.ifname);
    let attachment = Some(Attachment::of(call));
    let held = file.read()?;
    // Of an earlier ADD, or of another tuning in the list: it knows what was there first.
    let earlier = held.as_deref().and_then(Backup::decode);
    let earlier = earlier.filter(|earlier| earlier.attachment == attachment);
    let earlier = earlier.map(|earlier| earlier.before).unwrap_or_default();
    file.write(&Backup { before: earlier.or(before), attachment })?;
    rollback.push("put back what was known of the interface", move || match held {
        Some(bytes) => file.put(&bytes),
        None => file.remove(),
    });
    Ok(())
}

fn write_sysctls(
    sysctls: &[Sysctl],
    ifname: &str,
    rollback: &mut Rollback<'_>,
) -> Result<(), Error> {
    for it in sysctls {
        let path = it.path(ifname);
        // What can only be written (`route/flush`) has no value to go back to.
        let before = sysctl::read(&path).ok();
        sysctl::write(&path, &it.value)?;
        if let Some(before) = before {
            rollback.push("put back a kernel parameter", move || sysctl::write(&path, &before));
        }
    }
    Ok(())
}

fn set(
    socket: &mut Socket,
    link: &Link,
    asked: &Settings,
    before: Settings,
    rollback: &mut Rollback<'_>,
) -> Result<(), Error> {
    let (index, name) = (link.index, link.name.clone());
    let requests = asked.requests(index, &name);
    // All are tried, whichever is refused.
    rollback.push("set the interface back", move || {
        Ok(Socket::open()?.execute(&before.requests(index, &name))?)
    });
    Ok(socket.execute(&requests)?)
}

/// Tells of the interface as it is now.
fn update(result: &mut AddResult, ifname: &str, set: &Settings) {
    let Some(index) = prev_result::position(result, ifname) else { return };
    let Some(entry) = result.interfaces.get_mut(index) else { return };
    if let Some(mac) = set.mac {
        entry.mac = mac.to_string();
    }
    if entry.mtu.is_some() {
        entry.mtu = set.mtu.map(i64::from).or(entry.mtu);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cni::Interface;
    use netlink::HardwareAddress;

    #[test]
    fn the_result_tells_of_the_containers_interface_as_it_is() {
        let entry = |sandbox: &str, mtu| Interface {
            name: "eth0".into(),
            mac: "02:00:00:00:00:01".into(),
            mtu,
            sandbox: sandbox.into(),
            ..Interface::default()
        };
        let mac = HardwareAddress([2, 0, 0, 0, 0, 9]);
        let set = Settings { mac: Some(mac), mtu: Some(1400), ..Settings::default() };
        let interfaces = vec![entry("", Some(1500)), entry("/n", Some(1500))];
        let mut result = AddResult { interfaces, ..AddResult::default() };
        update(&mut result, "eth0", &set);
        assert_eq!(result.interfaces[0], entry("", Some(1500)));
        assert_eq!(result.interfaces[1].mac, mac.to_string());
        assert_eq!(result.interfaces[1].mtu, Some(1400));
        // What did not tell the MTU still does not.
        result.interfaces = vec![entry("/n", None)];
        update(&mut result, "eth0", &set);
        assert_eq!(result.interfaces[0].mtu, None);
        update(&mut result, "eth1", &set);
    }
}
