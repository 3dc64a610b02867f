use netlink::Event as Heard;

use super::*;
use crate::metrics::Metrics;
use crate::nftables::Settings;

fn agent() -> Agent {
    let dataplane = Dataplane::open(&Settings::default(), &[]).unwrap();
    Agent::new(dataplane, vec![], Arc::new(Status::new(Metrics::new())))
}

#[tokio::test]
async fn nothing_wakes_it_for_what_it_cannot_do() {
    let mut agent = agent();
    // What was suspected long ago is due, but the objects are not there.
    agent.drift.hear(&[Heard::Missed], None);
    assert_eq!(agent.next_due(), None);
    (agent.has_services, agent.has_slices, agent.has_node) = (true, true, true);
    assert_eq!(agent.next_due(), Some(agent.drift.due()));
    agent.work.start(Job::Tidy.since(None));
    assert_eq!(agent.next_due(), None);
    let done = agent.work.finished().await;
    agent.finish(done, Instant::now());
    assert_eq!(agent.next_due(), Some(agent.drift.due()));
}

#[tokio::test]
async fn what_failed_is_tried_again_after_its_pause() {
    let mut agent = agent();
    (agent.has_services, agent.has_slices, agent.has_node) = (true, true, true);
    let now = Instant::now();
    let error = crate::dataplane::Error::NoNftables;
    let (kind, took) = (Kind::Change, Duration::ZERO);
    let (result, generation, own_port) = (Err(error), None, None);
    let (started, left) = (None, BTreeSet::new());
    let done = Done { result, kind, generation, own_port, started, took, left };
    agent.finish(done, now);
    assert_eq!(agent.next_due(), now.checked_add(PAUSES.0));
}
