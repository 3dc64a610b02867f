//! Any changes, one after the other, come to what taking over the last state comes to.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use proxyd::dataplane::Written;
use proxyd::model::NamespacedName;
use proxyd::nftables::{Local, Scheduler, Settings};
use proxyd::plan::Plan;
use serde_json::{Value, json};

use crate::scene::{dataplane, listed, move_away, name, plan, sorted};

/// A service's number, what it is like, and how many endpoints it has; or that it goes.
pub(crate) type Step = (usize, Option<(Value, usize)>);

fn spec(service: usize) -> impl Strategy<Value = Value> {
    let policy = || prop::sample::select(vec!["Cluster", "Local"]);
    (policy(), policy(), any::<bool>(), any::<bool>(), any::<bool>(), 1..=2_u16).prop_map(
        move |(internal, external, is_sticky, is_balanced, is_limited, ports)| {
            let ports: Vec<_> = (0..ports)
                .map(|it| json!({"name": it.to_string(), "port": 80 + it, "nodePort": 30_000 + 10 * service + usize::from(it)}))
                .collect();
            json!({
                "type": "LoadBalancer",
                "clusterIPs": [format!("10.96.0.{service}"), format!("fd00:96::{service}")],
                "ports": ports,
                "internalTrafficPolicy": internal,
                "externalTrafficPolicy": external,
                "sessionAffinity": if is_sticky { "ClientIP" } else { "None" },
                "loadBalancerSourceRanges": if is_limited { vec!["203.0.113.0/24", "2001:db8::/32"] } else { vec![] },
                "ingress": if is_balanced { vec![json!({"ip": format!("192.0.2.{}", 100 + service)})] } else { vec![] },
            })
        },
    )
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    (1..=4_usize).prop_flat_map(|service| {
        let like = (spec(service), 0..5_usize);
        prop_oneof![4 => like.prop_map(Some), 1 => Just(None)].prop_map(move |it| (service, it))
    })
}

/// The endpoints that services have some of, the last ones.
pub(crate) const ENDPOINTS: [(&str, &str); 5] = [
    ("10.244.0.1", "here"),
    ("fd00::1", "there"),
    ("10.244.0.2", "there"),
    ("fd00::2", "here"),
    ("10.244.0.3", "there"),
];

fn planned(service: usize, like: &Option<(Value, usize)>) -> (NamespacedName, Option<Arc<Plan>>) {
    let text = format!("s{service}");
    let plan = like.as_ref().map(|(spec, count)| plan(&text, spec, &ENDPOINTS[5 - count..]));
    (name(&text), plan)
}

#[test]
fn changes_come_to_what_taking_over_comes_to() {
    let settings = Settings {
        local: Local::Ranges(vec!["10.244.0.0/16".parse().unwrap()]),
        ..Settings::default()
    };
    let mut runner = TestRunner::new(Config { cases: 40, ..Config::default() });
    let bursts = prop::collection::vec(prop::collection::vec(step(), 1..4), 1..6);
    runner
        .run(&(bursts, any::<bool>()), |(bursts, hashes)| {
            let scheduler = if hashes { Scheduler::SourceHash } else { Scheduler::Random };
            let settings = Settings { scheduler, ..settings.clone() };
            // Each in a namespace of its own.
            std::thread::spawn(move || {
                move_away();
                let mut first = dataplane(&settings);
                first.adopt(&BTreeMap::new()).unwrap();
                let mut all: BTreeMap<NamespacedName, Arc<Plan>> = BTreeMap::new();
                for burst in bursts {
                    let changes: BTreeMap<_, _> =
                        burst.iter().map(|(service, like)| planned(*service, like)).collect();
                    first.apply(&changes).unwrap();
                    for (name, plan) in changes {
                        match plan {
                            Some(plan) => _ = all.insert(name, plan),
                            None => _ = all.remove(&name),
                        }
                    }
                }
                first.tidy().unwrap();
                let changed = [true, false].map(listed).map(|it| sorted(&it));
                // Another one finds it right, and so does the first.
                let mut second = dataplane(&settings);
                assert_eq!(second.adopt(&all).unwrap(), Written::default());
                assert_eq!(second.tidy().unwrap(), Written::default());
                assert_eq!([true, false].map(listed).map(|it| sorted(&it)), changed);
                assert_eq!(first.adopt(&all).unwrap(), Written::default());
                // And from nothing it is the same, but for the numbers of pools.
                first.remove().unwrap();
                second.adopt(&all).unwrap();
                let lines = |of: &[Vec<String>; 2]| of.each_ref().map(Vec::len);
                let anew = [true, false].map(listed).map(|it| sorted(&it));
                assert_eq!(lines(&anew), lines(&changed));
            })
            .join()
            .unwrap();
            Ok(())
        })
        .unwrap();
}
