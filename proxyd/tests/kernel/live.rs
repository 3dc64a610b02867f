//! What is told of a connection is what the kernel holds of it, and what is not is told.

use std::collections::BTreeMap;

use cluster::Change;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use proxyd::explain::{Query, Who, World};
use proxyd::index::{Event, Index};
use proxyd::live::{Kernel, Live, compare};
use proxyd::model::{EndpointSlice, Read, Service};
use proxyd::nftables::{Local, Settings};
use serde_json::json;
use tokio::sync::mpsc;

use crate::random::{ENDPOINTS, Step, step};
use crate::scene::{dataplane, move_away, nft, node, objects};

type Objects = BTreeMap<String, (Read<Service>, Read<EndpointSlice>)>;

fn settings() -> Settings {
    Settings {
        local: Local::Ranges(vec!["10.244.0.0/16".parse().unwrap()]),
        service_ranges: vec!["10.96.0.0/16".parse().unwrap()],
        ..Settings::default()
    }
}

/// All objects as a source tells them.
fn events(objects: &Objects) -> [Event; 3] {
    let (services, slices) = objects.values().cloned().unzip();
    [
        Event::Node(node()),
        Event::Services(Change::Listed(services)),
        Event::Slices(Change::Listed(slices)),
    ]
}

fn world(objects: &Objects) -> World {
    let (sender, mut receiver) = mpsc::channel(3);
    events(objects).into_iter().for_each(|it| sender.try_send(it).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(World::gather(&mut receiver, settings(), |it| it)).unwrap()
}

fn compared(world: &World, to: &str, from: Who) -> Live {
    let query = Query { to: to.parse().unwrap(), from };
    compare(world, &query, &Kernel::read(&query).unwrap()).unwrap()
}

fn change(objects: &mut Objects, burst: &[Step]) {
    for (service, like) in burst {
        let name = format!("s{service}");
        match like {
            Some((spec, count)) => {
                let object = crate::scene::objects(&name, spec, &ENDPOINTS[5 - count..]);
                objects.insert(name, object);
            }
            None => _ = objects.remove(&name),
        }
    }
}

#[test]
fn whatever_there_is_is_told_as_it_is() {
    let mut runner = TestRunner::new(Config { cases: 20, ..Config::default() });
    let bursts = prop::collection::vec(prop::collection::vec(step(), 1..4), 2..4);
    runner
        .run(&bursts, |bursts| {
            // Each in a namespace of its own.
            std::thread::spawn(move || {
                move_away();
                let mut dataplane = dataplane(&settings());
                dataplane.adopt(&BTreeMap::new()).unwrap();
                let (mut index, mut objects) = (Index::default(), Objects::new());
                for burst in bursts {
                    change(&mut objects, &burst);
                    events(&objects).into_iter().for_each(|it| index.apply(it));
                    dataplane.apply(&index.take_changes().plans).unwrap();
                }
                let world = world(&objects);
                let places = index
                    .plans()
                    .into_values()
                    .flat_map(|it| it.frontends.keys().copied().collect::<Vec<_>>());
                let places = places.map(|it| it.to_string());
                let nowhere = ["10.96.0.1:99", "10.96.0.77:80", "[fd00:96::1]:99", "192.0.2.10:9"];
                for to in places.chain(nowhere.map(str::to_owned)) {
                    let live = compared(&world, &to, Who::Anybody);
                    assert!(live.holds(), "{to}: {live}");
                }
            })
            .join()
            .unwrap();
            Ok(())
        })
        .unwrap();
}

/// To what is connected, what is done to the table, and how the differences begin that are told then.
const SPOILT: [(&str, &str, &[&str]); 8] = [
    (
        "10.96.0.1:80",
        "delete element ip podwire-proxy services { 10.96.0.1 . tcp . 80 }",
        &[
            "connections from pods: expected that it is led to 10.244.0.5:8080 and 10.244.1.5:8080, for 10800 s to the same; found that it is refused",
            "services of ip podwire-proxy: 10.96.0.1 . tcp . 80: expected 7090:2 (outside-stick-2); found no such element",
        ],
    ),
    (
        "10.96.0.1:80",
        "flush map ip podwire-proxy endpoints",
        &[
            "connections from pods: expected that it is led to 10.244.0.5:8080 and 10.244.1.5:8080, for 10800 s to the same; found that it is led to nobody, for 10800 s to the same",
            "endpoints of ip podwire-proxy: 7200:0 . 0: expected 10.244.0.5 . 8080; found no such element",
            "endpoints of ip podwire-proxy: 7200:0 . 1: expected 10.244.1.5 . 8080; found no such element",
        ],
    ),
    (
        "10.96.0.1:80",
        "add rule ip podwire-proxy stick-2 drop",
        &["chain stick-2 of ip podwire-proxy: expected "],
    ),
    (
        "10.96.0.1:80",
        "flush map ip podwire-proxy chains",
        &[
            "chains of ip podwire-proxy: 7090:2 (outside-stick-2): expected goto outside-stick-2; found no such element",
        ],
    ),
    (
        "192.0.2.77:80",
        "flush chain ip podwire-proxy allow-0",
        &[
            "connections from pods: expected that it is led to 10.244.0.5:8080 and 10.244.1.5:8080, masqueraded, for 10800 s to the same; found that it is dropped",
            "chain allow-0 of ip podwire-proxy: expected ",
        ],
    ),
    (
        "10.96.0.9:80",
        "add element ip podwire-proxy services { 10.96.0.9 . tcp . 80 : 7000:0 }",
        &[
            "connections from pods: expected that it is dropped; found that it is refused",
            "services of ip podwire-proxy: 10.96.0.9 . tcp . 80: expected no such element; found 7000:0 (rejecting)",
        ],
    ),
    (
        "10.96.0.1:80",
        "table ip podwire-proxy { flags dormant; }",
        &["table ip podwire-proxy: expected what proxyd makes; found something else"],
    ),
    (
        "10.96.0.1:80",
        "delete table ip podwire-proxy",
        &["table ip podwire-proxy: expected what proxyd makes; found nothing"],
    ),
];

#[test]
fn what_somebody_changed_is_told() {
    move_away();
    let spec = json!({
        "type": "LoadBalancer", "clusterIP": "10.96.0.1", "ports": [{"port": 80}],
        "sessionAffinity": "ClientIP", "ingress": [{"ip": "192.0.2.77"}],
        "loadBalancerSourceRanges": ["203.0.113.0/24", "10.244.0.0/16"],
    });
    let endpoints = [("10.244.0.5", "here"), ("10.244.1.5", "there")];
    let objects: Objects = [("s".to_owned(), objects("s", &spec, &endpoints))].into();
    let world = world(&objects);
    let mut index = Index::default();
    events(&objects).into_iter().for_each(|it| index.apply(it));
    index.take_changes();
    let mut dataplane = dataplane(&settings());
    let absent = compared(&world, "10.96.0.1:80", Who::Pod);
    assert_eq!(absent.differences.len(), 1, "{absent}");
    dataplane.adopt(&index.plans()).unwrap();
    for (to, spoilt, places) in SPOILT {
        assert!(compared(&world, to, Who::Pod).holds(), "{spoilt}");
        assert!(nft(&[spoilt], "").status.success(), "{spoilt}");
        let live = compared(&world, to, Who::Pod);
        let text = live.to_string();
        let told: Vec<_> = text.lines().skip(1).filter_map(|it| it.strip_prefix("  ")).collect();
        let is_told = |(told, wanted): (&&str, &&str)| told.starts_with(*wanted);
        assert!(
            told.len() == places.len() && told.iter().zip(places).all(is_told),
            "{spoilt}: {text}"
        );
        dataplane.adopt(&index.plans()).unwrap();
    }
}
