//! Having the node forward packets. Netlink tells whether it does; to change that there are only the
//! files below `/proc/sys`.

use std::fs;
use std::path::PathBuf;

use netlink::{Link, Socket};

use super::Error;
use super::plan::Seen;

/// `accept_ra`: router advertisements are taken while the node does not forward ...
const UNLESS_FORWARDING: &str = "1";
/// ... and also while it does.
const ALWAYS: &str = "2";

/// Has the node forward packets of these families, `[IPv4, IPv6]`, without a cluster that tells its
/// uplinks: they are the links with a default route. Whether it did not.
///
/// # Errors
/// [`Error::Routes`], or [`Error::Parameter`] where `/proc/sys` is read-only.
pub fn enable(families: [bool; 2]) -> Result<bool, Error> {
    let mut socket = Socket::open()?;
    let seen = Seen::look(&mut socket)?;
    let uplinks: Vec<&Link> = seen.default_links(|_| true).collect();
    ensure(&mut socket, families, &seen, &uplinks)
}

/// Turns forwarding on for families where it is off; whether it was off for one.
///
/// A node that forwards IPv6 takes no more router advertisements, and loses the routers and addresses
/// that it has by them. So its uplinks are told first to take them all the same. Where forwarding was
/// on before, that was somebody else's decision, and is left alone.
///
/// # Errors
/// [`Error`].
pub(super) fn ensure(
    socket: &mut Socket,
    families: [bool; 2],
    seen: &Seen,
    uplinks: &[&Link],
) -> Result<bool, Error> {
    let [ipv4, ipv6] = families;
    let mut was_off = false;
    if ipv4 && !forwards(socket, true)? {
        write("net/ipv4/ip_forward", "1")?;
        was_off = true;
    }
    if ipv6 && !forwards(socket, false)? {
        for link in with_routers(seen, uplinks) {
            keep_advertisements(link)?;
        }
        write("net/ipv6/conf/all/forwarding", "1")?;
        was_off = true;
    }
    Ok(was_off)
}

fn forwards(socket: &mut Socket, is_ipv4: bool) -> Result<bool, Error> {
    // Where the kernel does not tell, it is written, which does no harm.
    Ok(socket.forwards(is_ipv4)?.unwrap_or(false))
}

/// The uplinks, and links that have a default route of IPv6.
fn with_routers<'a>(seen: &'a Seen, uplinks: &[&'a Link]) -> Vec<&'a Link> {
    let is_default = |link: &Link| {
        let mut routes = seen.routes.iter().filter(|it| it.link == link.index);
        routes.any(|it| it.dst.is_ipv6() && it.dst.prefix() == 0)
    };
    let is_uplink = |link: &Link| uplinks.iter().any(|it| it.index == link.index);
    seen.links.iter().filter(|link| is_uplink(link) || is_default(link)).collect()
}

fn keep_advertisements(link: &Link) -> Result<(), Error> {
    let key = format!("net/ipv6/conf/{}/accept_ra", link.name);
    let value = fs::read_to_string(file(&key)).unwrap_or_default();
    if value.trim() == UNLESS_FORWARDING { write(&key, ALWAYS) } else { Ok(()) }
}

fn file(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(key)
}

fn write(key: &str, value: &'static str) -> Result<(), Error> {
    fs::write(file(key), value).map_err(|source| {
        // In the words of `sysctl`, which has slashes where a name has dots.
        let named = key.replace(['/', '.'], "\0");
        let swap = |(is, was): (char, char)| match (is, was) {
            ('\0', '/') => '.',
            ('\0', _) => '/',
            (other, _) => other,
        };
        let key_of_sysctl = named.chars().zip(key.chars()).map(swap).collect();
        Error::Parameter { file: file(key), key: key_of_sysctl, value, source }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_cannot_be_written_is_told_with_the_cure() {
        let error = write("net/ipv6/conf/no.such/accept_ra", ALWAYS).unwrap_err().to_string();
        assert!(error.contains("set net.ipv6.conf.no/such.accept_ra=2 on the node"), "{error}");
        assert!(error.contains("/proc/sys/net/ipv6/conf/no.such/accept_ra"), "{error}");
    }
}
