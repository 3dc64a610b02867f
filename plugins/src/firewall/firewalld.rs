//! firewalld: a container's addresses come to a zone that lets them pass, over D-Bus, as the reference has it
//! (`plugins/meta/firewall/firewalld.go`).

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::WHAT;
use super::bus::{Bus, BusError, Call};
use crate::error::{Error, warn};

const NAME: &str = "org.fedoraproject.FirewallD1";
const PATH: &str = "/org/fedoraproject/FirewallD1";
const ZONES: &str = "org.fedoraproject.FirewallD1.zone";
/// What its refusals begin with where it has been done already.
const HAS_IT: [&str; 2] = ["ZONE_ALREADY_SET", "ALREADY_ENABLED"];
const HAS_IT_NOT: [&str; 2] = ["UNKNOWN_SOURCE", "NOT_ENABLED"];

/// A firewalld that runs.
pub(super) struct Firewalld(Bus);

impl Firewalld {
    /// The one that was asked for.
    pub(super) fn connect() -> Result<Self, Error> {
        Self::try_find()?.ok_or_else(|| {
            let text = format!("{WHAT} by firewalld, which does not run ({NAME} has no owner)");
            Error::NotAvailable(text)
        })
    }

    /// One that runs, if there is one.
    pub(super) fn find() -> Option<Self> {
        Self::find_or_fail().unwrap_or_else(|error| {
            let text = cni::ErrorObject::from(error).msg;
            warn(&format!("cannot tell whether firewalld runs, going on without it: {text}"));
            None
        })
    }

    /// One that runs, if there is one, on a node that was to have one: a bus that does not answer may hide it.
    pub(super) fn find_or_fail() -> Result<Option<Self>, Error> {
        match Self::try_find() {
            Err(Error::Bus { source, .. }) if source.is_missing() => Ok(None),
            found => found,
        }
    }

    fn try_find() -> Result<Option<Self>, Error> {
        let failed = |source| Error::Bus { what: "ask for firewalld".into(), source };
        let mut bus = Bus::connect().map_err(failed)?;
        let call = Call::to_bus("NameHasOwner", &[NAME]);
        let runs = bus.call(&call).and_then(|answer| answer.boolean()).map_err(failed)?;
        Ok(runs.then_some(Self(bus)))
    }

    /// Has what comes from an address be of a zone.
    pub(super) fn add_source(&mut self, zone: &str, address: IpAddr) -> Result<(), Error> {
        self.change("addSource", zone, address, HAS_IT)
    }

    /// The same no more.
    pub(super) fn remove_source(&mut self, zone: &str, address: IpAddr) -> Result<(), Error> {
        self.change("removeSource", zone, address, HAS_IT_NOT)
    }

    /// Whether what comes from an address is of a zone.
    pub(super) fn has_source(&mut self, zone: &str, address: IpAddr) -> Result<bool, Error> {
        let source = IpNetwork::from(address).to_string();
        let answer = self.0.call(&call("querySource", &[zone, &source]));
        answer.and_then(|it| it.boolean()).map_err(|error| Error::Bus {
            what: format!("ask for source {source} of zone {zone:?} of firewalld"),
            source: error,
        })
    }

    fn change(
        &mut self,
        method: &'static str,
        zone: &str,
        address: IpAddr,
        done: [&str; 2],
    ) -> Result<(), Error> {
        let source = IpNetwork::from(address).to_string();
        match self.0.call(&call(method, &[zone, &source])) {
            Err(BusError::Refused { text, .. }) if done.iter().any(|it| text.starts_with(it)) => {
                Ok(())
            }
            Err(error) => Err(Error::Bus {
                what: format!("{method} {source} of zone {zone:?} of firewalld"),
                source: error,
            }),
            Ok(_) => Ok(()),
        }
    }
}

fn call<'a>(member: &'a str, arguments: &'a [&'a str]) -> Call<'a> {
    Call { destination: NAME, path: PATH, interface: ZONES, member, arguments }
}

/// Whether it may run some time: it needs D-Bus.
pub(super) fn available() -> Result<(), Error> {
    match Bus::connect() {
        Err(error) if error.is_missing() => {
            Err(Error::NotAvailable(format!("{WHAT} by firewalld needs D-Bus: {error}")))
        }
        _ => Ok(()),
    }
}
