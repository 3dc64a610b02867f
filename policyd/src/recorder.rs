//! Kubernetes Events (`events.k8s.io/v1`) of what is wrong with objects.
//!
//! Each node finds what is wrong with a policy, and one Event is enough. So an Event's name follows
//! from the object and the problem, and whoever comes second leaves it alone. When a problem that
//! this program has told comes back, the Event becomes a series.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::{Client, Error};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use ruleset::short_hash;
use serde_json::json;
use tokio::sync::mpsc::Receiver;
use tokio::time::sleep;

use crate::model;

/// One Event is written in this time: other nodes write too.
const PAUSE: Duration = Duration::from_secs(1);
/// As many problems are remembered to have been told.
const MOST_REMEMBERED: usize = 1024;
const CONTROLLER: &str = "policyd";
const REASON: &str = "InvalidField";
const ACTION: &str = "Compile";
/// What the API server takes (`validateV1EventCreation`): bytes of a note, of an instance's name,
/// and of an object's, without room for a hash.
const LONGEST_NOTE: usize = 1024;
const LONGEST_INSTANCE: usize = 128;
const LONGEST_NAME: usize = 200;

/// Something is wrong with an object that was not before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The object's uid.
    pub uid: String,
    /// What is wrong.
    pub problem: model::Error,
}

/// Writes Events, one a second at most.
pub struct Recorder {
    client: Client,
    node: String,
    /// How often each Event was told by us.
    counts: BTreeMap<String, i32>,
    is_failing: bool,
}

impl Recorder {
    /// That of policyd on a node, writing by `client`, which needs to create and patch Events.
    #[must_use]
    pub fn new(client: Client, node: String) -> Self {
        Self { client, node, counts: BTreeMap::new(), is_failing: false }
    }

    /// Writes Events until nobody can send notices any more. What fails is logged, and lost.
    pub async fn run(mut self, mut notices: Receiver<Notice>) {
        while let Some(notice) = notices.recv().await {
            let written = self.write(&notice).await;
            if let Err(error) = &written
                && !self.is_failing
            {
                tracing::warn!(error = %crate::chain(error), "Events cannot be written; what is wrong with objects is only in the log");
            }
            self.is_failing = written.is_err();
            sleep(PAUSE).await;
        }
    }

    async fn write(&mut self, notice: &Notice) -> Result<(), Error> {
        let event = event(notice, &self.node, Timestamp::now());
        let name = event.metadata.name.clone().unwrap_or_default();
        let namespace = &notice.problem.object.namespace;
        if cluster::create(&self.client, namespace, &event).await? {
            self.remember(name, 1);
            return Ok(());
        }
        let Some(before) = self.counts.get(&name) else {
            self.remember(name, 1);
            return Ok(());
        };
        let count = before.saturating_add(1);
        let last_observed_time = MicroTime(Timestamp::now());
        let series = json!({"series": EventSeries { count, last_observed_time }});
        cluster::patch::<Event>(&self.client, namespace, &name, &series).await?;
        self.remember(name, count);
        Ok(())
    }

    fn remember(&mut self, name: String, count: i32) {
        if self.counts.len() >= MOST_REMEMBERED && !self.counts.contains_key(&name) {
            // Who is forgotten is told as if for the first time.
            self.counts.pop_first();
        }
        self.counts.insert(name, count);
    }
}

fn event(notice: &Notice, node: &str, now: Timestamp) -> Event {
    let model::Error { kind, object, path, problem } = &notice.problem;
    let api_version = match *kind {
        "NetworkPolicy" => "networking.k8s.io/v1",
        _ => "v1",
    };
    let note = format!("{path}: {problem}; what is wrong allows nothing");
    let hash = short_hash(&format!("{} {note}", notice.uid));
    let stem = cut(&object.name, LONGEST_NAME).trim_end_matches(['.', '-']);
    Event {
        metadata: ObjectMeta {
            namespace: Some(object.namespace.clone()),
            name: Some(format!("{stem}.{hash}")),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(cut(node, LONGEST_INSTANCE).to_owned()),
        type_: Some("Warning".to_owned()),
        reason: Some(REASON.to_owned()),
        action: Some(ACTION.to_owned()),
        note: Some(cut(&note, LONGEST_NOTE).to_owned()),
        regarding: Some(ObjectReference {
            api_version: Some(api_version.to_owned()),
            kind: Some((*kind).to_owned()),
            namespace: Some(object.namespace.clone()),
            name: Some(object.name.clone()),
            uid: Some(notice.uid.clone()),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

/// The beginning of a text, of so many bytes at most.
fn cut(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}
