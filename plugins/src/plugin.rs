//! The plugins by their names.

use cni::serve::Plugin;

use crate::bandwidth::Bandwidth;
use crate::bridge::Bridge;
use crate::firewall::Firewall;
use crate::ipam_plugins::{HostLocal, Static};
use crate::loopback::Loopback;
use crate::policy::Policy;
use crate::portmap::Portmap;
use crate::ptp::Ptp;
use crate::sbr::Sbr;
use crate::tuning::Tuning;

/// All of them.
pub(crate) static ALL: [&(dyn Plugin + Sync); 11] = [
    &Bridge, &Ptp, &Loopback, &HostLocal, &Static, &Portmap, &Firewall, &Tuning, &Sbr, &Bandwidth,
    &Policy,
];

/// Their names, for people.
pub(crate) fn names() -> String {
    ALL.map(|plugin| plugin.name()).join(", ")
}

/// The plugin that is called under `name`.
pub(crate) fn by_name(name: &str) -> Option<&'static dyn Plugin> {
    ALL.into_iter().find(|plugin| plugin.name() == name).map(|plugin| plugin as &dyn Plugin)
}
