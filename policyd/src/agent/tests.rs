//! What the loop takes in.

use runner::OsRunner;

use super::*;
use crate::dataplane::Programs;
use crate::metrics::Metrics;
use crate::source::Change;

fn agent() -> Agent<OsRunner> {
    let settings = Settings::default();
    let dataplane = Dataplane::new(Programs::new(OsRunner, ""), &[], settings.clone());
    let config = Config {
        node: "node-1".to_owned(),
        settings,
        gate: false,
        cut_flows: false,
        notices: mpsc::channel(1).0,
    };
    Agent::new(config, dataplane, Arc::new(Status::new(Metrics::new())))
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
