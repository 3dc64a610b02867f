//! What the loop takes in.

use runner::OsRunner;

use super::work::Outcome;
use super::*;
use crate::attachment::PodReference;
use crate::dataplane::{Kind, Programs};
use crate::metrics::Metrics;
use crate::model::Pod;

fn agent() -> Agent<OsRunner> {
    agent_that_asks(mpsc::channel(4).0)
}

fn agent_that_asks(asks: mpsc::Sender<NamespacedName>) -> Agent<OsRunner> {
    let settings = Settings::default();
    let dataplane =
        Dataplane::new(Kind::Iptables, Programs::new(OsRunner, ""), &[], settings.clone());
    let config = Config {
        node: "node-1".to_owned(),
        settings,
        of_cluster: false,
        gate: false,
        addresses: Vec::new(),
        notices: mpsc::channel(1).0,
    };
    Agent::new(config, dataplane, asks, Arc::new(Status::new(Metrics::new())))
}

// Whoever listens to nf_tables needs a runtime.
#[tokio::test]
async fn lists_and_the_node_count_wherever_in_a_burst_they_come() {
    let last = [
        Event::Policies(Change::Listed(Vec::new())),
        Event::Node(Node { name: "node-1".to_owned(), ..Node::default() }),
    ];
    for event in last {
        for before in MOST_EVENTS_AT_ONCE - 1..=MOST_EVENTS_AT_ONCE + 1 {
            let mut agent = agent();
            let (sender, mut events) = mpsc::channel(MOST_EVENTS_AT_ONCE * 2);
            for _ in 0..before {
                sender.try_send(Event::Pods(Change::Listed(Vec::new()))).unwrap();
            }
            sender.try_send(event.clone()).unwrap();
            while let Ok(first) = events.try_recv() {
                agent.take_in(first, &mut events);
            }
            assert!(agent.synced.policies || agent.synced.node, "{before} before {event:?}");
            assert_eq!(agent.synced.node, agent.node.is_some());
        }
    }
}

#[tokio::test]
async fn a_pod_that_is_not_known_is_asked_for_and_kept_while_the_watch_may_still_show_it() {
    let (asks, mut asked) = mpsc::channel(4);
    let mut agent = agent_that_asks(asks);
    let name = NamespacedName { namespace: "shop".into(), name: "web".into() };
    let attachment = Attachment {
        container_id: "c1".into(),
        pod: Some(PodReference { name: name.clone(), uid: Some("u1".into()) }),
        addresses: BTreeSet::from(["10.244.1.5".parse().unwrap()]),
        interface: None,
    };
    let (reply, mut answer) = tokio::sync::oneshot::channel();
    agent.take_request(Request::Attach { attachment, reply });
    assert_eq!(asked.try_recv(), Ok(name.clone()));

    let pod = |uid: &str| -> Pod {
        let object = serde_json::json!({
            "metadata": {"namespace": "shop", "name": "web", "uid": uid},
            "spec": {"nodeName": "node-1", "containers": []}});
        Pod::from(&serde_json::from_value::<k8s_openapi::api::core::v1::Pod>(object).unwrap())
    };
    agent.take(Event::Answer(pod("u1")));
    agent.index.take_changes();
    assert!(agent.index.has_endpoint("c1"));
    assert!(answer.try_recv().is_err(), "nothing is in the kernel yet");
    // The watch has shown it: it goes when the watch says so.
    agent.take(Event::Pods(Change::Applied(pod("u1"))));
    agent.asked.grow_old();
    agent.beat();
    assert!(agent.index.has_pod("u1"));
    // An answer that the watch never confirms is forgotten.
    agent.take(Event::Answer(pod("u2")));
    agent.beat();
    assert!(agent.index.has_pod("u2"));
    agent.asked.grow_old();
    agent.beat();
    assert!(agent.index.has_pod("u1") && !agent.index.has_pod("u2"));
    // One that comes after the watch has told changes nothing.
    agent.take(Event::Answer(pod("u1")));
    agent.asked.grow_old();
    agent.beat();
    assert!(agent.index.has_pod("u1"));
}

#[tokio::test]
async fn only_changes_of_tables_that_hold_rules_of_ours_make_it_look() {
    for (tables, is_ours) in [
        (vec!["nat"], false),
        (vec!["nat", "kube-proxy"], false),
        (vec!["nat", "mangle"], true),
        // The kernel does not tell which.
        (vec![], true),
    ] {
        let mut agent = agent();
        let quiet = agent.drift.due();
        let tables = tables.into_iter().map(str::to_owned).collect();
        let (id, process_id, port, process_name) = (1, 2, 2, "nft".to_owned());
        let generation =
            netlink::nftables::Generation { id, process_id, process_name, port, tables };
        agent.drift.hear(vec![netlink::Event::Heard(generation.clone())]);
        assert_eq!(agent.drift.due() < quiet, is_ours, "{generation:?}");
        agent.drift.forgive(&BTreeSet::from([2]));
        assert_eq!(agent.drift.due(), quiet);
    }
}

/// What came of something that failed.
fn failed(look: Option<Look>, error: crate::dataplane::Error) -> Done {
    Done {
        result: Err(error),
        found: None,
        ran: crate::dataplane::Ran::default(),
        took: Duration::ZERO,
        waited: None,
        look,
    }
}

#[tokio::test]
async fn a_look_that_fails_holds_up_no_change_and_is_taken_again() {
    let failed = |look| failed(look, crate::dataplane::Error::NoNftables);
    let mut agent = agent();
    agent.is_astray = false;
    let quiet = agent.drift.due();
    agent.finish(failed(Some(Look::Compare)));
    let now = Instant::now();
    assert!(!agent.is_astray && !agent.writes.rests() && agent.looks.due(Look::Compare, now) > now);
    assert!(agent.drift.due() < quiet);
    assert_eq!(agent.status.metrics.look_failures.get(), 1);
    assert_eq!(agent.status.metrics.apply_failures.get(), 0);
    // What was written is not known then.
    agent.finish(failed(None));
    assert!(agent.is_astray && agent.writes.rests());
    assert!(matches!(agent.status.readiness(), Readiness::Failing(_)));
}

#[tokio::test]
async fn a_survey_that_fails_is_taken_again_by_itself_and_told_until_one_succeeds() {
    let interrupted = || netlink::Error::Interrupted { what: "list links".to_owned() };
    let no_filter = || netlink::Error::NoBridgeNetfilter { bridge: "cni0".to_owned() };
    let survey = |error: netlink::Error| failed(Some(Look::Survey), error.into());
    let done = |outcome, look| Done {
        result: Ok(outcome),
        ..failed(look, crate::dataplane::Error::NoNftables)
    };
    let mut agent = agent();
    let quiet = agent.drift.due();
    agent.links.begin();
    agent.finish(survey(interrupted()));
    // Nobody knows yet by which links endpoints are, and what the kernel holds of that stays.
    assert!(!agent.links.is_surveyed());
    assert_eq!(agent.drift.due(), quiet);
    assert!(
        agent.looks.due(Look::Survey, Instant::now()) > Instant::now() + Duration::from_millis(100)
    );
    agent.finish(done(Outcome { is_commit: true, ..Outcome::default() }, None));
    assert_eq!(agent.status.readiness(), Readiness::Ready);
    agent.finish(Done { found: Some(BTreeMap::new()), ..survey(no_filter()) });
    assert!(agent.links.is_surveyed());
    // What was written meanwhile changes nothing about that.
    agent.finish(done(Outcome { is_commit: true, ..Outcome::default() }, None));
    assert!(
        matches!(agent.status.readiness(), Readiness::Failing(why) if why.contains("br_netfilter"))
    );
    agent.finish(done(Outcome::default(), Some(Look::Survey)));
    assert_eq!(agent.status.readiness(), Readiness::Ready);
}

#[tokio::test]
async fn looks_take_turns_however_much_others_write() {
    let mut agent = agent();
    agent.drift.begin();
    agent.drift.end(Duration::from_secs(2));
    agent.drift.suspect();
    // A fifth of the time at most.
    assert!(agent.drift.due() > Instant::now() + Duration::from_secs(9));
    assert!(agent.links.due() < agent.drift.due());
}
