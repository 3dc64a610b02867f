//! The tables that iptables used before nf_tables: nobody tells when they change, and there is no
//! netlink for them (`include/uapi/linux/netfilter_ipv4/ip_tables.h`).

use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::Error;

/// `IPT_SO_GET_INFO`, and `IP6T_SO_GET_INFO`.
const GET_INFO: libc::c_int = 64;
/// `XT_TABLE_MAXNAMELEN`.
const LONGEST_NAME: usize = 32;

/// `struct ipt_getinfo`, and `struct ip6t_getinfo`.
#[repr(C)]
#[derive(Default)]
struct Info {
    name: [u8; LONGEST_NAME],
    valid_hooks: libc::c_uint,
    hook_entry: [libc::c_uint; 5],
    underflow: [libc::c_uint; 5],
    entries: libc::c_uint,
    size: libc::c_uint,
}

/// How many entries a table of the calling thread's namespace has: its rules, and some for each of
/// its chains. Asking for a table that is not there makes the kernel make it:
/// `/proc/thread-self/net/ip_tables_names` tells which are.
///
/// # Errors
/// [`Error`], also when the kernel has no such tables.
pub fn entries(is_ipv4: bool, table: &str) -> Result<u32, Error> {
    let what = || format!("ask for the number of entries of the old table {table}");
    let failed = |errno: Errno| Error::Socket { what: what(), source: errno.into() };
    let (family, level) = if is_ipv4 {
        (AddressFamily::Inet, libc::SOL_IP)
    } else {
        (AddressFamily::Inet6, libc::SOL_IPV6)
    };
    let socket =
        socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).map_err(failed)?;
    let mut info = Info::default();
    // One byte less than there is room for: the name ends with a zero.
    for (room, byte) in info.name.iter_mut().take(LONGEST_NAME - 1).zip(table.bytes()) {
        *room = byte;
    }
    Errno::result(get(&socket, level, &mut info)).map_err(failed)?;
    Ok(info.entries)
}

fn get(socket: &OwnedFd, level: libc::c_int, info: &mut Info) -> libc::c_int {
    let mut length = libc::socklen_t::try_from(size_of::<Info>()).unwrap_or_default();
    #[expect(unsafe_code, reason = "no library has this option of a socket")]
    // SAFETY: the kernel reads and writes at most `length` bytes of `info`, which is that long, and
    // in which any bytes are good.
    unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            GET_INFO,
            std::ptr::from_mut(info).cast(),
            &raw mut length,
        )
    }
}
