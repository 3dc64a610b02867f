//! GC: attachments that no runtime knows any more.

use serde_json::json;

use crate::agent::Manner;
use crate::site::{Site, addresses, ptp};

fn collected(manner: Option<Manner>) {
    let site = Site::new(ptp()).with(&json!({"timeout": 300}));
    let pods = ["one", "two", "three"].map(|name| site.node.pod(name));
    let agent = site.agent(Manner::Works);
    let results = pods.each_ref().map(|pod| site.add(pod).ok());
    drop(agent);
    let agent = manner.map(|manner| site.agent(manner));
    let reply = site.gc(&["one", "three"]);
    assert!(reply.succeeded(), "{reply}");
    let left = &addresses(&results[0]) | &addresses(&results[2]);
    assert_eq!((site.files(), site.let_pass()), (vec!["one".into(), "three".into()], left.clone()));
    // Attachments of another network are its own business.
    let site = site.with(&json!({"name": "net2"}));
    assert!(site.gc(&[]).succeeded());
    assert_eq!(site.let_pass(), left);
    let site = site.with(&json!({"name": "net1"}));
    assert!(site.gc(&[]).succeeded());
    assert_eq!((site.files().len(), site.let_pass().len()), (0, 0));
    drop(agent);
}

#[test]
fn what_is_not_valid_goes() {
    collected(Some(Manner::Works));
}

#[test]
fn without_policyd_the_plugin_collects() {
    collected(None);
}

#[test]
fn beside_a_policyd_that_is_late_the_plugin_collects() {
    collected(Some(Manner::Hangs));
}

#[test]
fn an_absent_list_collects_nothing() {
    let site = Site::new(ptp());
    let _agent = site.agent(Manner::Works);
    let pod = site.node.pod("pod1");
    let result = site.add(&pod).ok();
    let call = site.policy_call("GC", &pod, &result).unset("CNI_CONTAINERID").unset("CNI_IFNAME");
    site.run(&call).expect_error(7);
    assert_eq!(site.let_pass(), addresses(&result));
}
