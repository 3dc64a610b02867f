//! A node with more links than most: what a call needs does not grow with them.

use serde_json::json;

use crate::common::{Site, bridge_with_all, ptp_with_all};

/// Pairs of a group, so that all can be deleted by one request.
const MAKE: &str =
    "seq 5000 | sed 's/.*/link add x& group 7 type veth peer name y&/' | ip -batch -";

/// KiB; an ADD on an empty node has 1.7 MB.
const MEMORY: u64 = 2_500;

#[test]
fn ten_thousand_links_need_no_more_memory() {
    for site in [Site::new(bridge_with_all()), Site::new(ptp_with_all())] {
        let pod = site.node.pod("pod1");
        let before = site.world(&[&pod]);
        site.node.sh(MAKE);
        let mut conf = site.conf.clone();
        for command in ["ADD", "CHECK", "DEL"] {
            let call = site.call(command, &pod).conf(&conf);
            let (reply, peak) = call.run_measured(&site.node, &site.podwire);
            let result = reply.ok();
            assert!(peak <= MEMORY, "{command} had {peak} KiB");
            if command == "ADD" {
                conf = site.conf_with(&json!({"prevResult": result}));
            }
        }
        site.node.sh("ip link del group 7");
        site.world(&[&pod]).must_be(&before, "after DEL");
    }
}
