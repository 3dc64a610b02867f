//! What is wrong with the objects: told once for as long as it lasts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;

use super::bucket::TokenBucket;
use crate::metrics::Metrics;
use crate::model::{Error, Pod, Policy};
use crate::recorder::Notice;
use crate::source::{Change, Event};

/// As many problems are logged at once ...
const BURST: u32 = 20;
/// ... and then one in this time.
const INTERVAL: Duration = Duration::from_secs(3);

/// The objects with problems, by their uids: all policies, and the pods of this node. The problems
/// of other pods are told by policyd on their nodes.
#[derive(Debug)]
pub(super) struct Problems {
    node: String,
    policies: Found,
    pods: Found,
    log: TokenBucket,
    notices: Sender<Notice>,
}

/// The problems of the objects that have some.
type Found = BTreeMap<String, Vec<Error>>;

impl Problems {
    pub(super) fn new(node: &str, notices: Sender<Notice>) -> Self {
        Self {
            node: node.to_owned(),
            policies: Found::new(),
            pods: Found::new(),
            log: TokenBucket::new(BURST, INTERVAL, Instant::now()),
            notices,
        }
    }

    /// Takes in an event: what is wrong that was not before is logged and given to
    /// the recorder, and the gauges follow.
    pub(super) fn see(&mut self, event: &Event, metrics: &Metrics) {
        for notice in self.take_in(event) {
            if let Some(suppressed) = self.log.take(Instant::now()) {
                tracing::warn!(suppressed, "{}; what is wrong allows nothing", notice.problem);
            }
            // Events are told as far as the recorder keeps up, and only where there is one.
            _ = self.notices.try_send(notice);
        }
        metrics.found_problems(self.policies.len(), self.pods.len());
    }

    /// The problems that were not there before.
    fn take_in(&mut self, event: &Event) -> Vec<Notice> {
        let of_policy = |it: &Policy| (it.uid.clone(), it.problems.clone());
        let node = &self.node;
        let of_pod = |it: &Pod| {
            let is_ours = it.node.as_ref() == Some(node);
            (it.uid.clone(), if is_ours { it.problems.clone() } else { Vec::new() })
        };
        match event {
            Event::Policies(change) => note(&mut self.policies, change, of_policy),
            Event::Pods(change) => note(&mut self.pods, change, of_pod),
            Event::Namespaces(_) | Event::Node(_) | Event::Answer(_) => Vec::new(),
        }
    }
}

/// Makes `found` what it is after the change. Returns the problems that are new.
fn note<T>(
    found: &mut Found,
    change: &Change<T>,
    of: impl Fn(&T) -> (String, Vec<Error>),
) -> Vec<Notice> {
    match change {
        Change::Applied(object) => put(found, of(object)),
        Change::Removed(object) => {
            found.remove(&of(object).0);
            Vec::new()
        }
        Change::Listed(objects) => {
            let objects: Vec<_> = objects.iter().map(of).collect();
            let uids: BTreeSet<_> = objects.iter().map(|(uid, _)| uid.clone()).collect();
            found.retain(|uid, _| uids.contains(uid));
            objects.into_iter().flat_map(|object| put(found, object)).collect()
        }
    }
}

fn put(found: &mut Found, (uid, problems): (String, Vec<Error>)) -> Vec<Notice> {
    if problems.is_empty() {
        found.remove(&uid);
        return Vec::new();
    }
    let before = found.insert(uid.clone(), problems.clone()).unwrap_or_default();
    let new = problems.into_iter().filter(|problem| !before.contains(problem));
    new.map(|problem| Notice { uid: uid.clone(), problem }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tests::scene::{compile_pod, compile_policy, pod, policy};

    fn policies(change: Change<Policy>) -> Event {
        Event::Policies(change)
    }

    fn with_block(cidr: &str) -> Policy {
        compile_policy(&policy(
            "x/p",
            json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": cidr}}]}]}),
        ))
    }

    fn new() -> Problems {
        Problems::new("node-1", tokio::sync::mpsc::channel(1).0)
    }

    fn told(problems: &mut Problems, event: &Event) -> Vec<String> {
        problems.take_in(event).iter().map(|it| it.problem.to_string()).collect()
    }

    #[test]
    fn a_problem_is_told_once_and_again_when_it_comes_back() {
        let mut problems = new();
        let (bad, worse, good) = (with_block("a"), with_block("b"), with_block("10.0.0.0/8"));
        let first = told(&mut problems, &policies(Change::Listed(vec![bad.clone()])));
        assert_eq!(
            first,
            [
                "NetworkPolicy x/p: spec.ingress[0].from[0].ipBlock.cidr: \"a\" is not a CIDR (address/prefix length)"
            ]
        );
        assert_eq!(told(&mut problems, &policies(Change::Applied(bad.clone()))), [""; 0]);
        assert_eq!(told(&mut problems, &policies(Change::Listed(vec![bad.clone()]))), [""; 0]);
        assert_eq!(told(&mut problems, &policies(Change::Applied(worse))).len(), 1);
        assert_eq!(problems.policies.len(), 1);
        assert_eq!(told(&mut problems, &policies(Change::Applied(good))), [""; 0]);
        assert!(problems.policies.is_empty());
        assert_eq!(told(&mut problems, &policies(Change::Applied(bad))), first);
    }

    #[test]
    fn nothing_is_kept_of_objects_that_are_gone() {
        let mut problems = new();
        let bad = with_block("a");
        told(&mut problems, &policies(Change::Applied(bad.clone())));
        told(&mut problems, &policies(Change::Removed(bad.clone())));
        assert!(problems.policies.is_empty());
        told(&mut problems, &policies(Change::Applied(bad)));
        told(&mut problems, &policies(Change::Listed(Vec::new())));
        assert!(problems.policies.is_empty());
    }

    #[test]
    fn pods_of_other_nodes_are_theirs() {
        let mut problems = new();
        let mut bad = compile_pod(&pod("x/a", &["no address"]));
        assert_eq!(bad.problems.len(), 1, "{bad:?}");
        bad.node = Some("node-2".to_owned());
        assert_eq!(told(&mut problems, &Event::Pods(Change::Applied(bad.clone()))), [""; 0]);
        bad.node = Some("node-1".to_owned());
        assert_eq!(told(&mut problems, &Event::Pods(Change::Applied(bad))).len(), 1);
        assert_eq!(problems.pods.len(), 1);
    }
    #[test]
    fn the_recorder_is_told_what_it_has_room_for() {
        let (sender, mut notices) = tokio::sync::mpsc::channel(1);
        let mut problems = Problems::new("node-1", sender);
        let metrics = Metrics::new();
        for cidr in ["a", "b"] {
            problems.see(&policies(Change::Applied(with_block(cidr))), &metrics);
        }
        let notice = notices.try_recv().unwrap();
        assert_eq!(notice.uid, with_block("a").uid);
        assert_eq!(Some(&notice.problem), with_block("a").problems.first());
        assert!(notices.try_recv().is_err());
    }
}
