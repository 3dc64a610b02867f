//! ADD.

use std::net::IpAddr;

use cni::{AddResult, Call};
use ipnetwork::IpNetwork;
use netlink::Socket;
use runner::{Lock, OsRunner};

use super::conf::{self, Conf};
use super::identity::Identity;
use super::iptables::{self, Programs, Rules};
use super::mapping::{Held, Holder};
use super::nftables::{self, Contents, Wanted};
use super::{SIGNS, WHAT, alive, del, flows, owner_of};
use crate::backend::Backend;
use crate::error::{Error, warn};
use crate::iptables::{FAMILIES, is_missing, lock};
use crate::kernel_tables::KernelTables;
use crate::nf_tables::missing;
use crate::rollback::Rollback;
use crate::sysctl;

/// Publishes the container's ports; the result is that of the plugins before.
pub(super) fn add(call: &Call) -> Result<AddResult, Error> {
    let conf = Conf::parse(call)?;
    let result = call.conf.prev_result()?.ok_or_else(|| {
        Error::Config("prevResult: missing; portmap must be called as chained plugin".into())
    })?;
    // A version that cannot express the result is an error before it is too late.
    result.to_json(call.conf.version)?;
    let addresses = conf::addresses(&result, &call.ifname);
    if conf.mappings.is_empty() || addresses == [None, None] {
        return Ok(result);
    }
    let mut rollback = Rollback::default();
    publish(call, &conf, &addresses, &mut rollback)?;
    if let (true, Some(address)) = (conf.snat, addresses.iter().flatten().find(|it| it.is_ipv4())) {
        route_loopback(address.ip())?;
    }
    flows::cut_stale(&conf.mappings, &conf::bare(&addresses));
    rollback.commit();
    Ok(result)
}

/// One after the other, so that of two that want one port one is refused.
fn publish<'a>(
    call: &'a Call,
    conf: &'a Conf,
    addresses: &[Option<IpNetwork>; 2],
    rollback: &mut Rollback<'a>,
) -> Result<(), Error> {
    let mut kernel = KernelTables::default();
    let lock = lock::take()?;
    let mut runner = OsRunner;
    let mut publisher =
        Publisher { call, conf, addresses, kernel: &mut kernel, lock: lock.as_ref() };
    let tables = publisher.saved(&mut runner)?;
    let dead = publisher.refuse_conflicts(&tables)?;
    rollback.push("remove the published ports", || del::tear_down(call).map(drop));
    publisher.set_up(&mut runner, tables, &dead)
}

struct Publisher<'a> {
    call: &'a Call,
    conf: &'a Conf,
    addresses: &'a [Option<IpNetwork>; 2],
    kernel: &'a mut KernelTables,
    lock: Option<&'a Lock>,
}

impl Publisher<'_> {
    /// Who holds one of the ports, and is dead; one who is alive is an error.
    fn refuse_conflicts(&mut self, tables: &[String; 2]) -> Result<Vec<Holder>, Error> {
        let mut held: Vec<Held> = tables.iter().flat_map(|it| iptables::held(it)).collect();
        if let Some(client) = self.kernel.client()? {
            held.extend(Contents::read(client)?.held());
        }
        let mut dead: Vec<Holder> = Vec::new();
        for (index, mapping) in self.conf.mappings.iter().enumerate() {
            for address in self.addresses.iter().flatten() {
                let Some(key) = mapping.key(address.is_ipv4()) else { continue };
                let in_the_way = held
                    .iter()
                    .filter(|it| it.to.is_ipv4() == address.is_ipv4() && it.key.overlaps(&key));
                for held in in_the_way {
                    if self.is_own(&held.holder) || dead.contains(&held.holder) {
                        continue;
                    }
                    // An address that is this container's by now is nobody else's.
                    if held.to != address.ip() && alive::is_alive(held)? {
                        return Err(Error::Config(format!(
                            "runtimeConfig.portMappings[{index}].hostPort: host port {} is published for {} at {} already",
                            held.key, held.holder, held.to
                        )));
                    }
                    warn(&format!(
                        "host port {} is taken from {}, which is not at {} any more",
                        held.key, held.holder, held.to
                    ));
                    dead.push(held.holder.clone());
                }
            }
        }
        Ok(dead)
    }

    /// What iptables has of each family.
    fn saved(&mut self, runner: &mut OsRunner) -> Result<[String; 2], Error> {
        let mut programs = Programs { runner, lock: self.lock };
        let mut tables = [String::new(), String::new()];
        for (family, table) in FAMILIES.into_iter().zip(&mut tables) {
            match programs.saved(family, self.kernel) {
                Ok(saved) => *table = saved,
                // Without the program nobody but the kernel knows.
                Err(error) if is_missing(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(tables)
    }

    fn is_own(&self, holder: &Holder) -> bool {
        holder.network == self.call.conf.name
            && !holder.container_id.is_empty()
            && self.call.container_id.starts_with(&holder.container_id)
            && holder.ifname.as_ref().is_none_or(|it| *it == self.call.ifname)
    }

    fn set_up(
        &mut self,
        runner: &mut OsRunner,
        tables: [String; 2],
        dead: &[Holder],
    ) -> Result<(), Error> {
        let backend = Backend::chosen(self.conf.backend, self.kernel, SIGNS);
        let of_dead: Vec<Identity> =
            dead.iter().map(|it| Identity::new(&it.network, &it.container_id)).collect();
        let mut programs = Programs { runner, lock: self.lock };
        match backend {
            Backend::Iptables => {
                let call = self.call;
                let families = FAMILIES.into_iter().zip(self.addresses).zip(tables);
                for ((family, address), saved) in families {
                    let Some(address) = address else { continue };
                    let identity = Identity::new(&call.conf.name, &call.container_id);
                    let rules = Rules::new(self.conf, identity, *address);
                    programs.set_up(family, saved, &rules, &of_dead)?;
                }
            }
            Backend::Nftables => {
                let client = self.kernel.client()?;
                let client = client.ok_or_else(|| missing(&format!("{WHAT} by nftables")))?;
                let wanted = Wanted::new(self.conf, owner_of(self.call), self.addresses);
                nftables::set_up(client, &wanted, dead)?;
                for identity in &of_dead {
                    iptables::tear_down(&mut programs, self.kernel, identity)?;
                }
            }
        }
        Ok(())
    }
}

/// Has the kernel route packets from its loopback's addresses to where the container is.
fn route_loopback(address: IpAddr) -> Result<(), Error> {
    let mut socket = Socket::open()?;
    let Some(route) = socket.route_to(address)? else { return Ok(()) };
    match socket.link_by_index(route.link)? {
        Some(link) => sysctl::ensure(&format!("net/ipv4/conf/{}/route_localnet", link.name), "1"),
        None => Ok(()),
    }
}
