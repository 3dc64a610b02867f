//! Parameters of connection tracking are those of kube-proxy, as far as the kernel lets them be set.

use std::fs;

use crate::daemon::{Folder, PATIENCE, eventually, wait_ready};
use crate::site::Site;

const ESTABLISHED: &str = "net/netfilter/nf_conntrack_tcp_timeout_established";
const CLOSE_WAIT: &str = "net/netfilter/nf_conntrack_tcp_timeout_close_wait";

fn is(site: &Site, key: &str, wanted: &str) -> bool {
    site.node.sysctl(key).as_deref() == Some(wanted)
}

#[test]
fn times_are_set_and_what_only_the_host_may_set_is_told() {
    let site = Site::new(true);
    let folder = Folder::new();
    site.node.set_sysctl(CLOSE_WAIT, "61");
    // Only in the first namespace of a machine there may be other limits: more than any machine has.
    let mut daemon = folder.start_with(&site, &["--conntrack-min", "4294967295"]);
    wait_ready(&site, &mut daemon);
    eventually("the time", || is(&site, ESTABLISHED, "86400") && is(&site, CLOSE_WAIT, "3600"));
    let log = folder.home.path().join("proxyd.log");
    eventually("a word of it", || {
        let log = fs::read_to_string(&log).expect("a log");
        log.contains("/proc/sys/net/netfilter/nf_conntrack_max stays as it is: ")
    });
    daemon.terminate(PATIENCE);
    // As they are, or otherwise.
    site.node.set_sysctl(CLOSE_WAIT, "61");
    let others =
        ["--conntrack-tcp-timeout-close-wait", "0", "--conntrack-tcp-timeout-established", "1h30m"];
    let mut daemon = folder.start_with(&site, &others);
    wait_ready(&site, &mut daemon);
    eventually("the time", || is(&site, ESTABLISHED, "5400"));
    assert!(is(&site, CLOSE_WAIT, "61"));
    daemon.terminate(PATIENCE);
}
