//! Results that reach nobody: an ADD that no runtime knows of is undone.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use lab::Suite;
use serde_json::json;

use crate::common::{Site, bridge_with_all, ptp_with_all};

/// A suite whose plugins write their answer where `redirection` says.
fn redirected(site: &Site, redirection: &str) -> Suite {
    let dir = site.node.home().join("redirected");
    fs::create_dir_all(&dir).unwrap();
    let file = dir.join(site.plugin());
    let plugin = site.podwire.plugin(site.plugin());
    let script = format!("#!/bin/sh\n{redirection}\nexec {}\n", plugin.display());
    fs::write(&file, script).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    Suite::at("redirected", &dir)
}

#[test]
fn an_add_whose_result_cannot_be_printed_is_undone() {
    let host_local = json!({"cniVersion": "1.0.0", "name": "net1", "type": "host-local",
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/24"}]]}});
    // A disk that is full; a pipe whose reader has gone.
    let closed = "mkfifo $HOME/pipe; exec 4<>$HOME/pipe 5>$HOME/pipe 4<&- 1>&5; rm $HOME/pipe";
    for redirection in ["exec >/dev/full", closed] {
        for conf in [bridge_with_all(), ptp_with_all(), host_local.clone()] {
            let site = Site::new(conf);
            let pod = site.node.pod("pod1");
            let before = site.world(&[&pod]);
            let home = site.node.home().to_str().unwrap().to_owned();
            let add = site
                .call("ADD", &pod)
                .env("HOME", &home)
                .env("CNI_PATH", site.podwire.dir().to_str().unwrap());
            let reply = add.run(&site.node, &redirected(&site, redirection));
            assert_eq!((reply.exit, reply.stdout.as_str()), (Some(1), ""), "{reply}");
            assert!(reply.stderr.contains("cannot print the result to stdout"), "{reply}");
            site.world(&[&pod]).must_be(&before, "after an ADD that nobody heard of");
            // And it can be repeated.
            let _ = site.add(&pod).ok();
            let _ = site.del(&pod).ok();
        }
    }
}
