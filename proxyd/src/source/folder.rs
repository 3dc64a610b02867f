//! A folder of manifests as the source of objects: Services without Kubernetes. See [`cluster::folder`].

use std::path::PathBuf;

use cluster::Change;
use cluster::folder::{self, Kind, Report, Wrong, typed};
use serde_json::Value;
use tokio::sync::mpsc::Sender;

use crate::index::Event;
use crate::model::{EndpointSlice, EndpointSlicePart, Problem, Read, Service, ServicePart};
use crate::plan::Node;

/// A folder of manifests, and the node that proxyd runs on.
#[derive(Debug)]
pub struct Folder {
    /// The folder.
    pub dir: PathBuf,
    /// The node.
    pub node: Node,
}

impl Folder {
    /// Sends what the folder holds and how it changes, until nobody receives it any more. What the manifests' author
    /// should know is given to `report`, once for as long as it stands; `defective` is told, after each reading, how many
    /// files may have objects that could not be read, and how many objects are left out as others have their names.
    pub async fn run(
        self,
        sender: Sender<Event>,
        report: impl FnMut(&Report),
        defective: impl FnMut(usize),
    ) {
        if sender.send(Event::Node(self.node)).await.is_err() {
            return;
        }
        folder::Folder::new(self.dir, Kinds).run(sender, events, report, defective).await;
    }
}

/// Services and their slices.
struct Kinds;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Object {
    Service(Read<Service>),
    Slice(Read<EndpointSlice>),
}

impl folder::Kinds for Kinds {
    type Object = Object;

    /// One Service that cannot be read is no reason to serve none.
    const NEEDS_ALL: bool = false;

    const READ: &'static [Kind<Self>] = &[
        Kind { version: "v1", kind: "Service", is_namespaced: true, read: service },
        Kind {
            version: "discovery.k8s.io/v1",
            kind: "EndpointSlice",
            is_namespaced: true,
            read: slice,
        },
    ];
}

fn service(_: &Kinds, _: &str, value: Value) -> Result<Object, Wrong> {
    whole(typed::<ServicePart>(value, None)?.read()).map(Object::Service)
}

fn slice(_: &Kinds, _: &str, value: Value) -> Result<Object, Wrong> {
    whole(typed::<EndpointSlicePart>(value, None)?.read()).map(Object::Slice)
}

/// What somebody writes by hand is right or told: nothing of it is left out.
fn whole<T>((read, problems): (Read<T>, Vec<Problem>)) -> Result<Read<T>, Wrong> {
    match problems.into_iter().next() {
        None => Ok(read),
        Some(Problem { field, value, wanted }) => {
            let error = serde::de::Error::custom(format!("{value:?} is not {wanted}"));
            Err((field, folder::Problem::Type(error)))
        }
    }
}

/// One event for each reading, so that a place which passes from one service to another is always one's, of however many at once.
///
/// Endpoints come ahead of services and go behind them, so that no service is without those that it has, by however many
/// transactions that is written; and services come ahead of those that go.
fn events(changes: Vec<Change<Object>>) -> Vec<Event> {
    let (mut slices, mut services) = (Vec::new(), Vec::new());
    let (mut gone_services, mut gone_slices) = (Vec::new(), Vec::new());
    for change in changes {
        match change {
            Change::Listed(all) => {
                let (mut listed_slices, mut listed_services) = (Vec::new(), Vec::new());
                for object in all {
                    match object {
                        Object::Service(it) => listed_services.push(it),
                        Object::Slice(it) => listed_slices.push(it),
                    }
                }
                slices.push(Event::Slices(Change::Listed(listed_slices)));
                services.push(Event::Services(Change::Listed(listed_services)));
            }
            Change::Applied(Object::Service(it)) => {
                services.push(Event::Services(Change::Applied(it)));
            }
            Change::Removed(Object::Service(it)) => {
                gone_services.push(Event::Services(Change::Removed(it)));
            }
            Change::Applied(Object::Slice(it)) => slices.push(Event::Slices(Change::Applied(it))),
            Change::Removed(Object::Slice(it)) => {
                gone_slices.push(Event::Slices(Change::Removed(it)));
            }
        }
    }
    let events = [slices, services, gone_services, gone_slices].into_iter().flatten();
    vec![Event::Together(events.collect())]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_comes_is_told_ahead_of_what_goes() {
        let metadata = json!({
            "name": "s", "namespace": "n", "labels": {"kubernetes.io/service-name": "s"},
        });
        let spec = json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]});
        let service = || service(&Kinds, "", json!({"metadata": metadata, "spec": spec})).unwrap();
        let object = json!({"metadata": metadata, "addressType": "IPv4", "endpoints": []});
        let slice = || slice(&Kinds, "", object.clone()).unwrap();
        let changes = vec![
            Change::Removed(slice()),
            Change::Removed(service()),
            Change::Applied(service()),
            Change::Applied(slice()),
        ];
        let Ok([Event::Together(events)]) = <[_; 1]>::try_from(events(changes)) else {
            panic!("they are not together");
        };
        let order = events.into_iter().map(|event| match event {
            Event::Slices(Change::Applied(_)) => "slices",
            Event::Services(Change::Applied(_)) => "services",
            Event::Services(Change::Removed(_)) => "services that go",
            Event::Slices(Change::Removed(_)) => "slices that go",
            event => panic!("{event:?}"),
        });
        let order: Vec<_> = order.collect();
        assert_eq!(order, ["slices", "services", "services that go", "slices that go"]);
    }
}
