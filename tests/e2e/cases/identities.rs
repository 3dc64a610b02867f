//! A pod's rights go with its labels, not with its addresses.

use std::time::Duration;

use e2e::traffic::sockets;
use e2e::{Bed, Pod, await_that, objects};

/// A pod that was deleted is made again at once; on a busy machine somewhat later.
const MADE_AGAIN: Duration = Duration::from_secs(60);

pub(crate) fn a_replaced_pod_keeps_its_rights_and_its_heir_gets_none(bed: &Bed) {
    bed.namespace("heirs");
    let server = bed.start(&objects::server("heirs", "server"));
    let stranger = bed.start(&objects::server("heirs", "stranger"));
    let node = bed.settings().nodes;
    bed.apply(&objects::stateful_on(node, "heirs", "db", 2));
    let [first, second] = ["db-0", "db-1"].map(|name| await_replaced(bed, name, None));
    assert_eq!([first.node, second.node], [node; 2]);
    bed.apply(&objects::deny("heirs"));
    bed.apply(&objects::allow("heirs", "db", "server"));
    bed.must_not_reach(&stranger, &server);
    for pod in [&first, &second] {
        bed.must_reach(pod, &server);
        bed.must_not_reach(&server, pod);
    }
    let replaced = replace(bed, &first);
    assert!(replaced.addresses.iter().all(|it| !first.addresses.contains(it)));
    bed.must_reach(&replaced, &server);
    bed.must_not_reach(&server, &replaced);
    // Who gets the address of one that may, may not: neither at once nor later.
    let target = sockets(&server).next().unwrap().to_string();
    bed.hand_out_next(first.node, &first.addresses);
    bed.apply(&objects::sender_on(first.node, "heirs", "hasty", &target));
    assert_eq!(bed.await_end("heirs", "hasty"), "Failed");
    assert_eq!(bed.pod("heirs", "hasty").addresses, first.addresses);
    bed.kubectl(&["delete", "pod", "-n", "heirs", "hasty"]);
    bed.hand_out_next(first.node, &first.addresses);
    let heir = bed.start(&objects::server_on(first.node, "heirs", "heir"));
    assert_eq!(heir.addresses, first.addresses);
    bed.must_not_reach(&heir, &server);
    // And one that may keeps its rights with the address of one that may not.
    let denied = bed.start(&objects::server_on(node, "heirs", "denied"));
    bed.must_not_reach(&denied, &server);
    bed.kubectl(&["delete", "pod", "-n", "heirs", "denied"]);
    bed.hand_out_next(node, &denied.addresses);
    let replaced = replace(bed, &second);
    assert_eq!(replaced.addresses, denied.addresses);
    bed.must_reach(&replaced, &server);
    bed.must_not_reach(&heir, &server);
    bed.remove_namespace("heirs");
}

/// Deletes a pod, and waits for the one of the same name that takes its place.
fn replace(bed: &Bed, pod: &Pod) -> Pod {
    bed.kubectl(&["delete", "pod", "-n", &pod.namespace, &pod.name]);
    await_replaced(bed, &pod.name, Some(&pod.uid))
}

fn await_replaced(bed: &Bed, name: &str, before: Option<&str>) -> Pod {
    let ask = ["get", "pod", "-n", "heirs", name];
    await_that(&format!("{name} is made"), MADE_AGAIN, || bed.try_kubectl(&ask));
    let pod = bed.await_pod("heirs", name);
    assert_ne!(Some(&*pod.uid), before);
    pod
}
