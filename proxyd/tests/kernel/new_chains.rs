//! Packets that are on their way while a service gets a chain that was not there yet.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proxyd::nftables::Settings;
use serde_json::json;

use crate::scene::{dataplane, move_away, name, nft, plan, plans, sh};

const CHANGES: usize = 3000;

/// Each packet begins a flow, as the kernel asks once for each.
fn send_without_end(stop: &AtomicBool) -> usize {
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        // A full table of connections is no matter.
        sent += usize::from(socket.send_to(b"x", "10.96.0.1:80").is_ok());
    }
    sent
}

#[test]
fn they_reach_the_service_by_the_old_or_the_new_one() {
    move_away();
    let counted = "add table ip counted
        add chain ip counted leaving { type filter hook postrouting priority 0; }
        add rule ip counted leaving ip daddr 10.96.0.1 counter";
    assert!(nft(&["-f", "-"], counted).status.success());
    sh("ip link set lo up; ip route add 10.96.0.0/16 dev lo; ip route add 10.244.0.0/16 dev lo
        sysctl -qw net.netfilter.nf_conntrack_udp_timeout=1");
    let spec = json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80, "protocol": "UDP"}]});
    let endpoints = ["10.244.0.1", "10.244.0.2"].map(|it| (it, "there"));
    let with = |count: usize| plan("s", &spec, &endpoints[..count]);
    let mut dataplane = dataplane(&Settings::default());
    dataplane.adopt(&plans([("s", with(1))])).unwrap();
    let stop = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        // It is in the namespace of who starts it.
        let sender = scope.spawn(|| send_without_end(&stop));
        for number in 0..CHANGES {
            dataplane.apply(&[(name("s"), Some(with(2 - number % 2)))].into()).unwrap();
            // The kind that nobody needs goes: so the next change makes it anew.
            dataplane.tidy().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        sender.join().unwrap()
    });
    assert!(sent > CHANGES, "{sent} were sent");
    let listed = String::from_utf8(nft(&["list", "table", "ip", "counted"], "").stdout).unwrap();
    assert!(listed.contains("counter packets 0 "), "of {sent}: {listed}");
}
