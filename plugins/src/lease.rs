//! Whose an address is, by host-local's files.

use std::fs::{self, File};
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;

/// The longest lease file is shorter.
const LONGEST: u64 = 1024;

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    /// The container's id.
    pub(crate) container_id: String,
    /// Its interface, which host-local of old did not write.
    pub(crate) ifname: Option<String>,
}

impl Lease {
    /// Of an address in a network, by the files in `data_dir`. `None` where nobody has it, or they cannot be read.
    pub(crate) fn read(data_dir: &Path, network: &str, address: IpAddr) -> Option<Self> {
        if !cni::name_is_valid(network) {
            return None;
        }
        let path = data_dir.join(network).join(address.to_string());
        // To open what is no file may wait.
        if !fs::metadata(&path).is_ok_and(|it| it.is_file()) {
            return None;
        }
        let mut text = String::new();
        File::open(path).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
        let mut lines = text.lines().map(str::trim);
        let container_id = lines.next().unwrap_or_default().to_owned();
        Some(Self { container_id, ifname: lines.next().map(str::to_owned) })
    }
}
