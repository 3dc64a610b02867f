//! The objects at one moment, for programs that ask once.

use tokio::sync::mpsc::Receiver;

use super::{Change, Event, Node};
use crate::World;
use crate::model::{Namespace, Pod, Policy};

/// Waits until a source has listed pods, namespaces and policies, and returns them with what it told
/// of the node by then; with `of_node` it waits for that too. `None`: the source has ended before.
pub async fn snapshot(
    events: &mut Receiver<Event>,
    of_node: bool,
) -> Option<(World, Option<Node>)> {
    let mut world = World::default();
    let mut node = None;
    let (mut pods, mut namespaces, mut policies) = (false, false, false);
    while !(pods && namespaces && policies && (node.is_some() || !of_node)) {
        match events.recv().await? {
            Event::Pods(change) => pods |= apply(&mut world.pods, change),
            Event::Namespaces(change) => namespaces |= apply(&mut world.namespaces, change),
            Event::Policies(change) => policies |= apply(&mut world.policies, change),
            Event::Node(told) => node = Some(told),
            Event::Answer(_) => {}
        }
    }
    Some((world, node))
}

/// Makes the change, and tells whether all objects of the kind are there now.
fn apply<T: Unique>(objects: &mut Vec<T>, change: Change<T>) -> bool {
    match change {
        Change::Listed(all) => {
            *objects = all;
            return true;
        }
        Change::Applied(object) => {
            objects.retain(|other| other.uid() != object.uid());
            objects.push(object);
        }
        Change::Removed(object) => objects.retain(|other| other.uid() != object.uid()),
    }
    false
}

trait Unique {
    fn uid(&self) -> &str;
}

impl Unique for Pod {
    fn uid(&self) -> &str {
        &self.uid
    }
}

impl Unique for Namespace {
    fn uid(&self) -> &str {
        &self.uid
    }
}

impl Unique for Policy {
    fn uid(&self) -> &str {
        &self.uid
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::sync::mpsc;

    use super::*;
    use crate::tests::scene::{compile_pod, compile_policy, pod, policy};

    fn seen(events: Vec<Event>, of_node: bool) -> Option<(World, Option<Node>)> {
        let (sender, mut receiver) = mpsc::channel(16);
        for event in events {
            sender.try_send(event).unwrap();
        }
        drop(sender);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(snapshot(&mut receiver, of_node))
    }

    #[test]
    fn changes_before_the_last_list_count() {
        let [a, b, c] = ["x/a", "x/b", "x/c"].map(|name| compile_pod(&pod(name, &[])));
        let newer = compile_pod(&pod("x/a", &["10.0.0.9"]));
        let p = compile_policy(&policy("x/p", json!({"podSelector": {}})));
        let events = vec![
            Event::Pods(Change::Listed(vec![a, b.clone()])),
            Event::Pods(Change::Applied(newer.clone())),
            Event::Policies(Change::Listed(vec![p.clone()])),
            Event::Pods(Change::Applied(c.clone())),
            Event::Pods(Change::Removed(b)),
            Event::Namespaces(Change::Listed(vec![])),
        ];
        let (world, node) = seen(events.clone(), false).unwrap();
        assert_eq!(world.pods, [newer, c]);
        assert_eq!(world.policies, [p]);
        assert_eq!(node, None);
        let told = Node { name: "n".to_owned(), ..Node::default() };
        let and_node = [events, vec![Event::Node(told.clone())]].concat();
        assert_eq!(seen(and_node, true), Some((world, Some(told))));
    }

    #[test]
    fn without_all_lists_there_is_no_world() {
        let lists = [Event::Pods(Change::Listed(vec![])), Event::Policies(Change::Listed(vec![]))];
        assert_eq!(seen(lists.into(), false), None);
    }
}
