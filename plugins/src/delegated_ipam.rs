//! The IPAM plugin named by the configuration: called within this process when it is one of ours,
//! executed when it is somebody else's.

use std::net::IpAddr;

use cni::delegate::Delegate;
use cni::{AddResult, Call, Command};

use crate::error::{Error, warn};
use crate::plugin;

/// The IPAM plugin of one call.
pub(crate) struct DelegatedIpam<'a> {
    call: &'a Call,
    name: String,
    target: Target,
}

enum Target {
    HostLocal,
    Static,
    Foreign(Delegate),
}

impl<'a> DelegatedIpam<'a> {
    /// Finds the plugin along `CNI_PATH`; `None` when the configuration names none.
    pub(crate) fn find(call: &'a Call) -> Result<Option<Self>, Error> {
        let Some(name) = call.conf.ipam_type() else { return Ok(None) };
        if is_main_plugin(name) {
            // It would in turn delegate, to itself, without end.
            return Err(Error::Config(format!("ipam.type: {name:?} is no IPAM plugin")));
        }
        let delegate = Delegate::find(name, &call.path)?;
        let target = match name {
            "host-local" if delegate.is_this_program() => Target::HostLocal,
            "static" if delegate.is_this_program() => Target::Static,
            _ => Target::Foreign(delegate),
        };
        Ok(Some(Self { call, name: name.to_owned(), target }))
    }

    /// As [`Self::find`], for DEL: what no ADD can have used has nothing to release.
    pub(crate) fn find_for_del(call: &'a Call) -> Result<Option<Self>, Error> {
        match call.conf.ipam_type() {
            Some(name) if is_main_plugin(name) => Ok(None),
            _ => Self::find(call),
        }
    }

    /// As [`Self::find`], for plugins that cannot be without.
    pub(crate) fn require(call: &'a Call) -> Result<Self, Error> {
        Self::find(call)?.ok_or_else(|| Error::Config("ipam.type: missing or empty".into()))
    }

    /// ADD; at least one address. One that failed leaves nothing behind.
    pub(crate) fn add(&self) -> Result<AddResult, Error> {
        let result = match &self.target {
            Target::HostLocal => noting(|notes| ipam::host_local::add(self.call, notes))?,
            Target::Static => ipam::static_addresses::add(self.call)?,
            Target::Foreign(delegate) => {
                delegate.execute_add(self.call).inspect_err(|_| self.clean_up())?
            }
        };
        if result.ips.is_empty() {
            self.clean_up();
            return Err(Error::NoAddress(self.name.clone()));
        }
        Ok(result)
    }

    /// Whether ADD will give an IPv6 address, as far as can be told before: of others' plugins it
    /// cannot.
    pub(crate) fn gives_ipv6(&self) -> Result<bool, Error> {
        match &self.target {
            Target::HostLocal => Ok(ipam::host_local::gives_ipv6(self.call)?),
            Target::Static => Ok(ipam::static_addresses::gives_ipv6(self.call)?),
            Target::Foreign(_) => Ok(false),
        }
    }

    /// DEL after a failed ADD (SPEC 1.1, "Delegated plugin execution procedure"). Our own plugins
    /// need none, and it would take the lease of an attachment that an ADD was repeated for.
    fn clean_up(&self) {
        if let Err(error) = self.del() {
            let text = cni::ErrorObject::from(error).msg;
            warn(&format!("could not release the IP addresses after a failed ADD: {text}"));
        }
    }

    /// DEL.
    pub(crate) fn del(&self) -> Result<(), Error> {
        match &self.target {
            Target::HostLocal => noting(|notes| ipam::host_local::del(self.call, notes))?,
            Target::Static => ipam::static_addresses::del(self.call)?,
            Target::Foreign(delegate) => {
                delegate.execute(self.call, Command::Del)?;
            }
        }
        Ok(())
    }

    /// Undoes an ADD that had this result. The attachment may have other addresses from an earlier
    /// ADD that was repeated, which our own plugin keeps.
    pub(crate) fn undo(&self, result: &AddResult) -> Result<(), Error> {
        let Target::HostLocal = &self.target else { return self.del() };
        let addresses: Vec<IpAddr> = result.ips.iter().map(|ip| ip.address.ip()).collect();
        noting(|notes| ipam::host_local::release(self.call, &addresses, notes))
    }

    /// CHECK.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match &self.target {
            Target::HostLocal => ipam::host_local::check(self.call)?,
            Target::Static => ipam::static_addresses::check(self.call)?,
            Target::Foreign(delegate) => {
                delegate.execute(self.call, Command::Check)?;
            }
        }
        Ok(())
    }

    /// GC.
    pub(crate) fn gc(&self) -> Result<(), Error> {
        match &self.target {
            Target::HostLocal => noting(|notes| ipam::host_local::gc(self.call, notes))?,
            Target::Static => ipam::static_addresses::gc(self.call)?,
            Target::Foreign(delegate) => {
                delegate.execute(self.call, Command::Gc)?;
            }
        }
        Ok(())
    }

    /// STATUS.
    pub(crate) fn status(&self) -> Result<(), Error> {
        match &self.target {
            Target::HostLocal => ipam::host_local::status(self.call)?,
            Target::Static => ipam::static_addresses::status(self.call)?,
            Target::Foreign(delegate) => {
                delegate.execute(self.call, Command::Status)?;
            }
        }
        Ok(())
    }
}

/// Whether one of our plugins has that name that is none for IPAM.
fn is_main_plugin(name: &str) -> bool {
    plugin::by_name(name).is_some() && !matches!(name, "host-local" | "static")
}

/// STATUS of a plugin that delegates: a delegate that is missing fails every ADD.
pub(crate) fn status(call: &Call, is_required: bool) -> Result<(), Error> {
    let found = if is_required {
        DelegatedIpam::require(call).map(Some)
    } else {
        DelegatedIpam::find(call)
    };
    match found {
        Ok(None) => Ok(()),
        Ok(Some(ipam)) => ipam.status(),
        Err(Error::Protocol(error @ cni::Error::DelegateNotFound { .. })) => {
            Err(Error::NotAvailable(error.to_string()))
        }
        Err(error) => Err(error),
    }
}

/// Runs host-local, and tells what it noted on the way, whatever became of it.
pub(crate) fn noting<T>(
    run: impl FnOnce(&mut Vec<String>) -> Result<T, ipam::Error>,
) -> Result<T, Error> {
    let mut notes = Vec::new();
    let result = run(&mut notes);
    notes.iter().for_each(|note| warn(note));
    Ok(result?)
}
