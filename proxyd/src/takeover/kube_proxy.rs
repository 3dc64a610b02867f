//! Whether kube-proxy runs on this node.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use netlink::nftables::Client;
use ruleset::nft::{Family, Table};

use super::{Error, table_of};

/// Where it tells its metrics and its mode (`metricsBindAddress`), also where that is all of the node's addresses.
const PORT: u16 = 10249;
/// It answers from memory; on a busy node somewhat later.
const PATIENCE: Duration = Duration::from_secs(2);
/// Its modes (`cmd/kube-proxy/app`): who answers with something else is somebody else.
const MODES: [&str; 4] = ["iptables", "nftables", "ipvs", "kernelspace"];
/// It makes this chain, and makes it again when somebody has flushed the tables.
const CANARY: &str = "KUBE-PROXY-CANARY";
const CANARY_TABLE: &str = "mangle";

/// By which mode kube-proxy runs in the namespace of the calling thread; `None`: nobody answers in its place.
#[must_use]
pub fn running() -> Option<&'static str> {
    let own = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    own.into_iter().find_map(|it| mode_at(SocketAddr::new(it, PORT)))
}

fn mode_at(place: SocketAddr) -> Option<&'static str> {
    let mut stream = TcpStream::connect_timeout(&place, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(b"GET /proxyMode HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    // Who answers without an end is not it.
    stream.take(4096).read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let is_ok = head.split(' ').nth(1) == Some("200");
    MODES.into_iter().find(|it| is_ok && *it == body.trim())
}

/// Whether there are rules of kube-proxy's, in the namespace of the calling thread: by nf_tables, or by iptables where its tables
/// are kept there.
///
/// # Errors
/// [`Error::NoNftables`] and [`Error::Kernel`].
pub fn has_rules(families: &[bool]) -> Result<bool, Error> {
    let mut client = Client::open()?.ok_or(Error::NoNftables)?;
    for is_ipv4 in families {
        let family = if *is_ipv4 { Family::Ip } else { Family::Ip6 };
        let chains = client.chains(Table { family, name: CANARY_TABLE })?;
        let has_canary = chains.is_some_and(|it| it.iter().any(|name| name == CANARY));
        if has_canary || client.has_table(table_of(*is_ipv4))? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// What is known of who answers so.
    fn known_by(answer: &'static str) -> Option<&'static str> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 512];
            let length = stream.read(&mut asked).unwrap();
            assert!(asked[..length].starts_with(b"GET /proxyMode "));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let mode = mode_at(place);
        server.join().unwrap();
        mode
    }

    #[test]
    fn who_tells_a_mode_is_kube_proxy() {
        assert_eq!(known_by("HTTP/1.0 200 OK\r\nA: b\r\n\r\niptables"), Some("iptables"));
        assert_eq!(known_by("HTTP/1.1 200 OK\r\n\r\nnftables\n"), Some("nftables"));
        assert_eq!(known_by("HTTP/1.0 404 Not Found\r\n\r\niptables"), None);
        assert_eq!(known_by("HTTP/1.0 200 OK\r\n\r\n# HELP iptables"), None);
        assert_eq!(known_by(""), None);
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(mode_at(nobody), None);
    }
}
