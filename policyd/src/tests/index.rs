//! The index against the oracle: whatever happened, and in whatever order, what the node enforces
//! is what the objects mean.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::properties::{any_packet, policy_object};
use super::scene::{compile_pod, compile_policy, namespace, nine_pods, pod, world};
use crate::attachment::{Attachment, PodReference};
use crate::index::Index;
use crate::model::{Direction, Namespace, NamespacedName};
use crate::plan::{HostInterface, Plan, allows};
use crate::source::{Change, Event};
use crate::{Packet, World, evaluate};

/// Something that happens to an object.
#[derive(Debug, Clone)]
enum Step {
    Applied(Value),
    Removed(Value),
}

fn event(step: &Step) -> Event {
    let (object, is_there) = match step {
        Step::Applied(object) => (object, true),
        Step::Removed(object) => (object, false),
    };
    fn change<T>(object: T, is_there: bool) -> Change<T> {
        if is_there { Change::Applied(object) } else { Change::Removed(object) }
    }
    match object["kind"].as_str().unwrap() {
        "Pod" => Event::Pods(change(compile_pod(object), is_there)),
        "NetworkPolicy" => Event::Policies(change(compile_policy(object), is_there)),
        _ => {
            let namespace = Namespace::from(&serde_json::from_value(object.clone()).unwrap());
            Event::Namespaces(change(namespace, is_there))
        }
    }
}

fn key(object: &Value) -> String {
    format!("{} {}", object["kind"], object["metadata"]["uid"])
}

/// The objects after the steps.
fn objects_after(steps: &[Step]) -> Vec<Value> {
    let mut objects = std::collections::BTreeMap::new();
    for step in steps {
        match step {
            Step::Applied(object) => _ = objects.insert(key(object), object.clone()),
            Step::Removed(object) => _ = objects.remove(&key(object)),
        }
    }
    objects.into_values().collect()
}

/// The last two numbers of the addresses that the scene gives a pod.
fn own_address(namespace: &str, name: &str) -> (u8, u8) {
    (namespace.as_bytes()[0] - b'x' + 1, name.as_bytes()[0] - b'a' + 1)
}

/// A pod that is otherwise than the scene's: other labels, node, state, ports, or somebody else's
/// addresses.
fn changed_pod() -> impl Strategy<Value = Value> {
    let name = (select(vec!["x", "y", "z"]), select(vec!["a", "b", "c", "d"]));
    let address = (1..4_u8, 1..5_u8);
    let label = select(vec!["a", "b", "q"]);
    let node = select(vec!["node-1", "node-1", "node-2"]);
    let phase = select(vec!["Running", "Running", "Pending", "Succeeded"]);
    (name, address, label, node, phase, 70..90_u16, any::<[bool; 4]>()).prop_map(
        |((ns, name), (one, two), label, node, phase, port, [host, leaving, newer, stays])| {
            // Else hardly ever would labels alone change.
            let (one, two) = if stays { own_address(ns, name) } else { (one, two) };
            let addresses = [format!("10.0.{one}.{two}"), format!("fd00::{one}:{two}")];
            let mut pod = pod(&format!("{ns}/{name}"), &[&addresses[0], &addresses[1]]);
            pod["metadata"]["labels"]["pod"] = json!(label);
            pod["spec"]["nodeName"] = json!(node);
            pod["spec"]["hostNetwork"] = json!(host && leaving);
            pod["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(port);
            pod["status"]["phase"] = json!(phase);
            if leaving {
                pod["metadata"]["deletionTimestamp"] = json!("2026-11-02T00:00:00Z");
            }
            if newer {
                pod["metadata"]["creationTimestamp"] = json!("2026-11-01T00:00:07Z");
            }
            pod
        },
    )
}

fn changed_namespace() -> impl Strategy<Value = Value> {
    (select(vec!["x", "y", "z"]), select(vec!["x", "y", "q"])).prop_map(|(name, label)| {
        let mut namespace = namespace(name);
        namespace["metadata"]["labels"] = json!({"ns": label});
        namespace
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let object =
        prop_oneof![3 => changed_pod(), 1 => changed_namespace(), 3 => policy_object()].boxed();
    let step = (object, prop::bool::weighted(0.25)).prop_map(|(object, gone)| {
        if gone { Step::Removed(object) } else { Step::Applied(object) }
    });
    vec(step, 0..14)
}

fn after_the_scene(steps: Vec<Step>) -> Vec<Step> {
    nine_pods().into_iter().map(Step::Applied).chain(steps).collect()
}

fn fresh(objects: &[Value]) -> Plan {
    let mut index = Index::new("node-1");
    objects.iter().for_each(|it| index.apply(event(&Step::Applied(it.clone()))));
    index.take_changes();
    index.plan()
}

/// What the oracle says for the ends on this node.
fn oracle(world: &World, packet: &Packet) -> bool {
    let verdict = evaluate(world, packet);
    [(Direction::Egress, packet.source), (Direction::Ingress, packet.destination)].iter().all(
        |(direction, address)| {
            let here = world.endpoints_at(*address).any(|it| it.node.as_deref() == Some("node-1"));
            !here || verdict.decision(*direction).is_allowed()
        },
    )
}

proptest! {
    #[test]
    fn changes_told_at_any_time_lead_to_the_plan_of_the_objects(
        steps in steps(),
        told_after in vec(any::<bool>(), 14),
    ) {
        let all = after_the_scene(steps);
        let mut index = Index::new("node-1");
        let mut plan = Plan::default();
        for (step, told) in all.iter().zip(told_after.iter().cycle()) {
            index.apply(event(step));
            if *told {
                plan.apply(index.take_changes());
                prop_assert_eq!(&plan, &index.plan());
            }
        }
        plan.apply(index.take_changes());
        prop_assert_eq!(&plan, &index.plan());
        prop_assert_eq!(&plan, &fresh(&objects_after(&all)));
        prop_assert!(index.take_changes().is_empty());
    }

    #[test]
    fn the_plan_allows_what_the_objects_allow(
        steps in steps(),
        packets in vec(any_packet(), 60),
    ) {
        let all = after_the_scene(steps);
        let objects = objects_after(&all);
        // While an address passes on, which named ports it has is left open: see the module's words
        // on sets.
        let world = world(&objects);
        prop_assume!(world.pods.iter().flat_map(|it| &it.addresses).all(|address| {
            world.endpoints_at(*address).count() <= 1
        }));
        let mut index = Index::new("node-1");
        all.iter().for_each(|step| index.apply(event(step)));
        index.take_changes();
        let plan = fresh(&objects);
        for packet in &packets {
            prop_assert_eq!(allows(&index, packet), allows(&plan, packet), "{:?}", packet);
            prop_assert_eq!(allows(&plan, packet), oracle(&world, packet), "{:?}", packet);
        }
    }

    #[test]
    fn a_list_is_as_good_as_all_events(steps in steps()) {
        let all = after_the_scene(steps);
        let objects = objects_after(&all);
        let mut index = Index::new("node-1");
        all.iter().for_each(|step| index.apply(event(step)));
        let World { pods, namespaces, policies } = world(&objects);
        // What is listed is nothing new; what is not listed is gone.
        index.take_changes();
        index.apply(Event::Pods(Change::Listed(pods)));
        index.apply(Event::Namespaces(Change::Listed(namespaces)));
        index.apply(Event::Policies(Change::Listed(policies)));
        prop_assert!(index.take_changes().is_empty());
        index.apply(Event::Pods(Change::Listed(Vec::new())));
        index.apply(Event::Policies(Change::Listed(Vec::new())));
        index.take_changes();
        prop_assert_eq!(index.plan(), Plan::default());
    }
}

#[test]
fn a_container_that_names_an_unknown_pod_has_rules_only_where_not_all_pods_are_told() {
    let name = NamespacedName { namespace: "x".to_owned(), name: "a".to_owned() };
    let attachment = |pod: Option<PodReference>| Attachment {
        container_id: "c1".to_owned(),
        pod,
        addresses: ["10.0.0.1".parse().unwrap()].into(),
        interface: None,
    };
    // As from a runtime that gives no uids.
    let named = || Some(PodReference { name: name.clone(), uid: None });
    let is_endpoint = |index: &mut Index| {
        index.take_changes();
        index.has_endpoint("c1")
    };
    let has_endpoint = |of_cluster: bool, pod: Option<PodReference>| {
        let mut index = Index::of("node-1", of_cluster);
        index.attach(attachment(pod));
        is_endpoint(&mut index)
    };
    assert!(has_endpoint(false, named()) && has_endpoint(false, None));
    assert!(!has_endpoint(true, named()) && has_endpoint(true, None));
    let mut index = Index::of("node-1", true);
    index.attach(attachment(named()));
    // Another pod has, or had, its address.
    index.apply(Event::Pods(Change::Applied(compile_pod(&pod("x/other", &["10.0.0.1"])))));
    assert!(!is_endpoint(&mut index));
    index.apply(Event::Pods(Change::Applied(compile_pod(&pod("x/a", &[])))));
    assert!(is_endpoint(&mut index));
}

/// A static pod's uid is that of its file, and changes with it; and of a sandbox that vanished nobody may
/// have told.
#[test]
fn a_static_pod_is_where_it_was_attached_last() {
    let interface = |name: &str| HostInterface { name: name.to_owned(), bridge: None };
    let attachment = |id: &str, last: u8, uid: &str| Attachment {
        container_id: id.to_owned(),
        pod: Some(PodReference {
            name: NamespacedName { namespace: "x".to_owned(), name: "a".to_owned() },
            uid: Some(uid.to_owned()),
        }),
        addresses: [[10, 0, 0, last].into()].into(),
        interface: Some(interface(&format!("veth-{id}"))),
    };
    let mut mirror = pod("x/a", &[]);
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "hash"});
    let mut index = Index::of("node-1", true);
    index.apply(Event::Pods(Change::Applied(compile_pod(&mirror))));
    let is_at = |index: &mut Index| {
        index.take_changes();
        let endpoint = index.endpoints().next().map(|(_, it)| it.interface.clone());
        endpoint.flatten().map(|it| it.name)
    };
    for (id, last) in [("c2", 1), ("c1", 2), ("c3", 3)] {
        index.attach(attachment(id, last, &format!("uid of {id}")));
        assert_eq!(is_at(&mut index), Some(format!("veth-{id}")));
    }
    // Whose address it is does not change by that.
    assert_eq!(index.endpoints().next().unwrap().1.addresses.len(), 3);
    index.detach("c3");
    assert_eq!(is_at(&mut index), Some("veth-c1".to_owned()));
}

/// Where the runtime gives no uid, the pod that has the name next could be any.
#[test]
fn what_a_container_left_whose_pod_nobody_told_of_is_forgotten_at_last() {
    let name = NamespacedName { namespace: "x".to_owned(), name: "a".to_owned() };
    let addresses_after = |minutes: u32| {
        let mut index = Index::of("node-1", true);
        index.attach(Attachment {
            container_id: "c".to_owned(),
            pod: Some(PodReference { name: name.clone(), uid: None }),
            addresses: [[10, 0, 0, 1].into()].into(),
            interface: None,
        });
        index.detach("c");
        (0..minutes).for_each(|_| index.grow_old());
        index.apply(Event::Pods(Change::Applied(compile_pod(&pod("x/a", &["10.0.0.1"])))));
        index.take_changes();
        index.endpoints().map(|(_, it)| it.addresses.len()).sum::<usize>()
    };
    assert_eq!([0, 1, 60, 61, 1000].map(addresses_after), [0, 0, 0, 1, 1]);
}
