//! kube-proxy runs beside proxyd, and ends.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use lab::proxyd;

use crate::client::must_reach;
use crate::daemon::{Folder, PATIENCE, ask_at, eventually};
use crate::site::Site;

/// Where kube-proxy tells of itself, and where load balancers ask it.
const PLACES: [u16; 2] = [10249, 10256];

/// Somebody who answers there as kube-proxy does, until this is dropped.
struct KubeProxy {
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl KubeProxy {
    fn start(site: &Site, places: &[u16]) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let threads = places.iter().map(|port| {
            let at = SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port));
            let listener = site.node.enter(|| TcpListener::bind(at).expect("the place is free"));
            let ends = Arc::clone(&ends);
            std::thread::spawn(move || answer(&listener, &ends))
        });
        let threads = threads.collect();
        Self { ends, threads }
    }
}

fn answer(listener: &TcpListener, ends: &AtomicBool) {
    listener.set_nonblocking(true).expect("a listener");
    while !ends.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else {
            sleep(Duration::from_millis(1));
            continue;
        };
        stream.set_nonblocking(false).expect("a stream");
        // All of it, which may come in pieces: what is not read when this ends takes the answer with it.
        let mut asked = Vec::new();
        let mut piece = [0; 512];
        while !asked.ends_with(b"\r\n\r\n") {
            let length = stream.read(&mut piece).unwrap_or_default();
            if length == 0 {
                break;
            }
            asked.extend_from_slice(&piece[..length]);
        }
        let is_mode = asked.starts_with(b"GET /proxyMode ");
        let head = "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n";
        // Who asks may have gone.
        _ = write!(stream, "{head}{}", if is_mode { "nftables" } else { "kube-proxy" });
    }
}

impl Drop for KubeProxy {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|it| _ = it.join());
    }
}

fn has_table(site: &Site) -> bool {
    site.node.sh("nft list tables").contains("table ip kube-proxy\n")
}

/// What load balancers are told.
fn told(site: &Site) -> Option<String> {
    ask_at(&site.node, SocketAddr::from((Ipv4Addr::LOCALHOST, PLACES[1])), "/healthz")
}

#[test]
fn its_place_is_taken_once_it_has_ended_and_not_before() {
    let mut site = Site::new(true);
    site.pods(["a", "b"]);
    site.node.sh("nft add table ip kube-proxy");
    let folder = Folder::with(&site, &["a"]);
    let kube_proxy = KubeProxy::start(&site, &PLACES);
    let at = "127.0.0.1:9097";
    let mut daemon = folder.start_with(&site, &["--takeover", "--metrics-bind-address", at]);
    let at = at.parse().expect("an address");
    daemon.wait_until(PATIENCE, || {
        ask_at(&site.node, at, "/readyz").is_some_and(|it| it.starts_with("HTTP/1.1 200 "))
    });
    let log = || fs::read_to_string(folder.home.path().join("proxyd.log")).expect("a log");
    eventually("a word of it", || {
        log().contains("another process has the place where load balancers ask")
    });
    assert_eq!(must_reach(site.pod("b"), site.at("service", 80)).0, "a");
    let refused = site.node.try_sh(&format!("{} takeover 2>&1", proxyd().display()));
    let why = "kube-proxy runs on this node, in mode nftables";
    assert!(!refused.status.success() && refused.stdout.contains(why), "{refused:?}");
    assert!(has_table(&site));
    assert!(told(&site).is_some_and(|it| it.ends_with("kube-proxy")));
    drop(kube_proxy);
    eventually("the table's end", || !has_table(&site));
    eventually("an answer of ours", || told(&site).is_some_and(|it| it.contains("nodeEligible")));
    // It may come back, and has one place left. What it writes then stays until it has ended again.
    let kube_proxy = KubeProxy::start(&site, &PLACES[..1]);
    site.node.sh("nft add table ip kube-proxy");
    eventually("a word of its return", || {
        log().contains("kube-proxy runs on this node again, in mode nftables")
    });
    assert!(has_table(&site));
    drop(kube_proxy);
    eventually("the table's end", || !has_table(&site));
    let removed = "what kube-proxy has left is removed";
    eventually("the end of all tables", || log().matches(removed).count() == 2);
    // Of one that answers nowhere its rules tell.
    site.node.sh("nft add table ip6 kube-proxy");
    eventually("a word of its rules", || log().contains("rules of kube-proxy's are there again"));
    assert!(site.node.sh("nft list tables").contains("table ip6 kube-proxy"));
}
