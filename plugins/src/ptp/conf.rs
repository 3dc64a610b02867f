//! The ptp plugin's configuration.

use cni::decode::Fields;
use cni::{Call, Dns, NetConf};

use crate::backend::Backend;
use crate::bridge::{read_backend, read_mtu};
use crate::conf;
use crate::error::Error;

/// The keys of a ptp configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conf {
    /// Traffic that leaves the address's network is masqueraded.
    pub(crate) ip_masq: bool,
    /// How; `None` leaves the choice to podwire.
    pub(crate) ip_masq_backend: Option<Backend>,
    /// Bytes, for both ends; `None` leaves the kernel's default.
    pub(crate) mtu: Option<u32>,
    /// Replaces what IPAM says.
    pub(crate) dns: Option<Dns>,
}

impl Conf {
    /// Reads the call's configuration.
    pub(crate) fn parse(call: &Call) -> Result<Self, Error> {
        conf::strictly(call, read)
    }

    /// Reads what can be read: for DEL and GC, which remove what they can.
    pub(crate) fn parse_leniently(call: &Call) -> Self {
        conf::leniently(call, read)
    }
}

/// Reads every key of a ptp configuration, telling problems to `fields`.
pub(crate) fn read(fields: &Fields<'_>) -> Conf {
    Conf {
        ip_masq: fields.bool("ipMasq").unwrap_or_default(),
        ip_masq_backend: read_backend(fields),
        mtu: read_mtu(fields),
        dns: NetConf::dns(fields),
    }
}
