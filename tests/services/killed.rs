//! proxyd is killed, stopped, or there twice, while services change and connections come.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixDatagram;
use std::thread::sleep;
use std::time::Instant;

use lab::proxyd;

use crate::client::must_reach;
use crate::daemon::{
    Folder, PATIENCE, ask_at, eventually, metric, served, slice, start_at, wait_ready,
};
use crate::many::{MANY, held, many};
use crate::site::Site;
use crate::steady::Steady;

const KILLS: u32 = 20;

fn killed_at_any_moment_it_loses_no_connection(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b", "c"]);
    let folder = Folder::with(&site, &["a", "b"]);
    folder.write("many.json", &many(&site, 0));
    let started = Instant::now();
    let mut daemon = folder.start(&site);
    wait_ready(&site, &mut daemon);
    let whole = started.elapsed();
    // One whose connections are not hidden: ports that are drawn may meet others that the server still remembers.
    let steady = Steady::start(site.pod("c"), site.at("service", 80));
    daemon.kill();
    for turn in 1..=KILLS {
        // It begins with other services than the kernel has, and these change while it is at work, too.
        folder.write("many.json", &many(&site, turn));
        let mut daemon = folder.start(&site);
        let moment = whole * 2 * (turn * 7 % KILLS) / KILLS;
        sleep(moment / 2);
        folder.write("many.json", &many(&site, turn + 1));
        sleep(moment / 2);
        daemon.kill();
    }
    let mut daemon = folder.start(&site);
    wait_ready(&site, &mut daemon);
    let count = steady.end();
    println!("{KILLS} kills within {whole:?} each: {count} connections, none lost");
    // What it has made of all that is what another one would make.
    assert_eq!(held(&site), MANY as usize);
    let left = site.content();
    daemon.kill();
    let mut daemon = folder.start(&site);
    wait_ready(&site, &mut daemon);
    for name in ["podwire_proxy_elements_added_total", "podwire_proxy_elements_deleted_total"] {
        assert_eq!(metric(&site, name), 0.0, "{name}");
    }
    assert_eq!(site.content(), left);
}

#[test]
fn killed_at_any_moment_it_loses_no_connection_by_ipv4() {
    killed_at_any_moment_it_loses_no_connection(true);
}

#[test]
fn killed_at_any_moment_it_loses_no_connection_by_ipv6() {
    killed_at_any_moment_it_loses_no_connection(false);
}

/// Names of sockets are anybody's.
#[test]
fn who_has_a_socket_of_its_name_keeps_it_from_nothing() {
    let mut site = Site::new(true);
    site.pods(["a", "b"]);
    let name = std::os::unix::net::SocketAddr::from_abstract_name("podwire-proxyd");
    let _squatter =
        site.node.enter(|| UnixDatagram::bind_addr(&name.expect("a name")).expect("nobody has it"));
    let folder = Folder::with(&site, &["a"]);
    let mut daemon = folder.start(&site);
    wait_ready(&site, &mut daemon);
    assert_eq!(must_reach(site.pod("b"), site.at("service", 80)).0, "a");
    let refused = site.node.try_sh(&format!("{} cleanup 2>&1", proxyd().display()));
    assert!(refused.stdout.contains("proxyd runs on this node"), "{refused:?}");
    daemon.terminate(PATIENCE);
    site.node.sh(&format!("{} cleanup", proxyd().display()));
    assert_eq!(site.tables(), "");
}

/// Meanwhile the kernel tells more than it keeps for who does not listen.
#[test]
fn stopped_for_a_while_it_finds_what_it_has_missed() {
    let (site, folder, daemon) = served(true, &["a", "b"]);
    let steady = Steady::start(site.pod("c"), site.at("service", 80));
    daemon.pause();
    folder.write("slice.json", &slice(&site, &["a"]));
    folder.write("many.json", &many(&site, 0));
    // Each of these is told, and a socket that nobody reads from has room for some thousand.
    site.node.sh("nft add table ip others
         for turn in $(seq 4); do
             seq 1 4000 | sed 's/^\\(.*\\)$/add chain ip others c\\1/' | nft -f -
             seq 1 4000 | sed 's/^\\(.*\\)$/delete chain ip others c\\1/' | nft -f -
         done
         nft delete element ip podwire-proxy cluster-ips '{ 10.96.0.1 }'
         nft flush chain ip podwire-proxy rejecting");
    daemon.resume();
    eventually("the endpoint's end", || {
        (0..10).all(|_| must_reach(&site.node, site.at("service", 80)).0 == "a")
    });
    eventually("what others took away", || {
        let tables = site.tables();
        tables.contains("elements = { 10.96.0.1") && tables.contains("reject")
    });
    eventually("the others", || held(&site) == MANY as usize);
    steady.end();
}

#[test]
fn a_second_one_waits_until_the_first_has_ended() {
    let (site, folder, mut first) = served(true, &["a"]);
    let before = site.content();
    let at = "127.0.0.1:9098";
    let arguments = folder.arguments(&site);
    let mut second =
        start_at(&site, folder.home.path(), at, &arguments.each_ref().map(String::as_str));
    let asked = |path: &str| ask_at(&site.node, at.parse().expect("an address"), path);
    second.wait_until(PATIENCE, || {
        asked("/readyz")
            .is_some_and(|it| it.contains("another proxyd, or its cleanup, runs on this node"))
    });
    assert!(asked("/livez").is_some_and(|it| it.starts_with("HTTP/1.1 200 ")));
    // Nor is anything removed under the one that runs.
    let refused = site.node.try_sh(&format!("{} cleanup 2>&1", proxyd().display()));
    assert!(
        !refused.status.success() && refused.stdout.contains("proxyd runs on this node"),
        "{refused:?}"
    );
    assert_eq!(site.content(), before);
    // One that is to have the same place for its health waits for that as well.
    let mut third = folder.start(&site);
    let log = folder.home.path().join("proxyd.log");
    third.wait_until(PATIENCE, || {
        fs::read_to_string(&log).expect("a log").contains("cannot listen on 127.0.0.1:10256")
    });
    let steady = Steady::start(site.pod("c"), site.at("service", 80));
    first.kill();
    eventually("one of them", || {
        let is_ready = |it: Option<String>| it.is_some_and(|it| it.starts_with("HTTP/1.1 200 "));
        is_ready(asked("/readyz")) || is_ready(crate::daemon::asked(&site, "/readyz"))
    });
    second.kill();
    wait_ready(&site, &mut third);
    folder.write("slice.json", &slice(&site, &["b"]));
    eventually("the other endpoint", || must_reach(&site.node, site.at("service", 80)).0 == "b");
    steady.end();
}
