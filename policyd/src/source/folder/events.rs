//! What changes of a folder mean: pure.

use super::kinds::Object;
use crate::source::{Change, Event};

/// The events of changes. A new policy comes ahead of new pods and an old one goes after old pods, so
/// that no pod is seen without its policies.
pub(super) fn events(changes: Vec<Change<Object>>) -> Vec<Event> {
    let mut events = Vec::new();
    for change in changes {
        events.push(match change {
            Change::Listed(all) => {
                events.extend(listed(all).map(|it| (0, it)));
                continue;
            }
            Change::Applied(Object::Namespace(it)) => (1, Event::Namespaces(Change::Applied(it))),
            Change::Applied(Object::Policy(it)) => (2, Event::Policies(Change::Applied(it))),
            Change::Applied(Object::Pod(it)) => (3, Event::Pods(Change::Applied(it))),
            Change::Removed(Object::Pod(it)) => (4, Event::Pods(Change::Removed(it))),
            Change::Removed(Object::Policy(it)) => (5, Event::Policies(Change::Removed(it))),
            Change::Removed(Object::Namespace(it)) => (6, Event::Namespaces(Change::Removed(it))),
        });
    }
    events.sort_by_key(|(order, _)| *order);
    events.into_iter().map(|(_, event)| event).collect()
}

fn listed(all: Vec<Object>) -> [Event; 3] {
    let (mut namespaces, mut policies, mut pods) = (Vec::new(), Vec::new(), Vec::new());
    for object in all {
        match object {
            Object::Namespace(it) => namespaces.push(it),
            Object::Policy(it) => policies.push(it),
            Object::Pod(it) => pods.push(it),
        }
    }
    [
        Event::Namespaces(Change::Listed(namespaces)),
        Event::Policies(Change::Listed(policies)),
        Event::Pods(Change::Listed(pods)),
    ]
}
