//! Node ports at the node's own 127.0.0.1.
//!
//! What comes from there keeps that address until it is masqueraded, and answers get it back before they are routed. The kernel
//! lets neither pass but by `route_localnet`. With that it also takes packets for 127.0.0.0/8 from neighbours
//! (CVE-2020-8558), and from them: so the table has rules that drop these before the parameter is set, for as long as it is.

use std::fs;
use std::path::Path;

use crate::sysctl::{self, Unchanged, Wanted};

/// That of all interfaces, as it is those of pods, which come and go.
const ROUTE_LOCALNET: &str = "ipv4/conf/all/route_localnet";

/// Whether the kernel routes it, as far as that can be read.
#[must_use]
pub fn is_routed() -> bool {
    let parameter = Path::new("/proc/sys/net").join(ROUTE_LOCALNET);
    fs::read_to_string(parameter).is_ok_and(|it| it.trim() != "0")
}

/// Has the kernel route 127.0.0.0/8, or not, by its parameters of the network, which are in this folder.
///
/// # Errors
/// [`Unchanged`].
pub fn route(parameters: &Path, is_routed: bool) -> Result<(), Unchanged> {
    sysctl::ensure(&parameters.join(ROUTE_LOCALNET), Wanted::Exactly(is_routed.into()))
}
