//! Kernel parameters of the calling thread's network namespace. Keys are paths below `/proc/sys`
//! with `/`, because an interface's name may have dots.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use netlink::Socket;

use crate::error::Error;

fn path(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(key)
}

/// Writes a value.
pub(crate) fn write(key: &str, value: &str) -> Result<(), Error> {
    put(key, value).map_err(|source| Error::Sysctl { key: key.into(), value: value.into(), source })
}

fn put(key: &str, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path(key))?.write_all(value.as_bytes())
}

/// Writes a value where it can be written; the parameter may not exist (no IPv6), or be read-only
/// in a container that the plugin runs in, and the reference plugins go on as well.
pub(crate) fn try_write(key: &str, value: &str) {
    let _ = put(key, value);
}

/// Writes a value unless it is there already: in many containers such parameters are right, but
/// read-only.
pub(crate) fn ensure(key: &str, value: &str) -> Result<(), Error> {
    match read(key) {
        Ok(current) if current == value => Ok(()),
        _ => write(key, value),
    }
}

/// Reads a value, without white space around it.
pub(crate) fn read(key: &str) -> io::Result<String> {
    fs::read_to_string(path(key)).map(|text| text.trim().to_owned())
}

/// Has the host forward packets of the families named. The kernel is asked by `host` first, which
/// is quicker than reading a file.
pub(crate) fn enable_forwarding(host: &mut Socket, ipv4: bool, ipv6: bool) -> Result<(), Error> {
    let families =
        [(ipv4, true, "net/ipv4/ip_forward"), (ipv6, false, "net/ipv6/conf/all/forwarding")];
    for (_, is_ipv4, key) in families.into_iter().filter(|family| family.0) {
        if !matches!(host.forwards(is_ipv4), Ok(Some(true))) {
            ensure(key, "1")?;
        }
    }
    Ok(())
}
