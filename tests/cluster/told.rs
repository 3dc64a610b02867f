//! An agent's source, and the world as it tells it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{JoinHandle, panicking};
use std::time::{Duration, Instant};

use futures_util::future::{join, select};
use lab::Space;
use policyd::model::{Namespace, NamespacedName, Pod, Policy};
use policyd::source::api_server::{ApiServer, Report};
use policyd::source::{Change, Event, Node};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};

/// What is waited for comes within this time: the longest pause between two attempts, and more.
const BOUND: Duration = Duration::from_secs(60);

/// What a source has told so far.
pub(crate) struct Told {
    news: Receiver<News>,
    stop: Option<oneshot::Sender<()>>,
    agent: Option<JoinHandle<()>>,
    pub(crate) pods: BTreeMap<String, Pod>,
    pub(crate) namespaces: BTreeMap<String, Namespace>,
    pub(crate) policies: BTreeMap<String, Policy>,
    pub(crate) node: Option<Node>,
    /// How often pods, namespaces and policies were listed.
    pub(crate) lists: [usize; 3],
    /// What went wrong.
    pub(crate) reports: Vec<String>,
}

enum News {
    Event(Event),
    Report(String),
}

impl Told {
    /// Starts the source of an agent on the node `name`, inside `space`, as the user of
    /// `kubeconfig`.
    pub(crate) fn start(space: &Space, kubeconfig: PathBuf, name: &str) -> Self {
        let (sender, news) = channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let name = name.to_owned();
        let agent = space.spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let client = cluster::connect(Some(&kubeconfig)).await.unwrap();
                let (events, mut receiver) = mpsc::channel(16);
                let server = ApiServer::new(client, name);
                // A test that has seen enough listens no more: then nothing can be sent.
                let report = |it: &Report| _ = sender.send(News::Report(it.to_string()));
                let forward = async {
                    while let Some(event) = receiver.recv().await {
                        _ = sender.send(News::Event(event));
                    }
                };
                let source = join(server.run(events, report), forward);
                select(pin!(source), stopped).await;
            });
        });
        Self {
            news,
            stop: Some(stop),
            agent: Some(agent),
            pods: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            policies: BTreeMap::new(),
            node: None,
            lists: [0; 3],
            reports: Vec::new(),
        }
    }

    /// Listens until it has been told what `wanted` is about.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, wanted: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !wanted(self) {
            match self.news.recv_timeout(BOUND.saturating_sub(started.elapsed())) {
                Ok(News::Event(event)) => self.take(event),
                Ok(News::Report(text)) => self.reports.push(text),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("not told in {BOUND:?}: {what}; reports: {:#?}", self.reports)
                }
                Err(RecvTimeoutError::Disconnected) => panic!("the source has ended: {what}"),
            }
        }
    }

    /// Listens until everything has been told once.
    #[track_caller]
    pub(crate) fn until_synced(&mut self) {
        self.until("everything once", |it| !it.lists.contains(&0) && it.node.is_some());
    }

    fn take(&mut self, event: Event) {
        let name = |name: &NamespacedName| name.to_string();
        let [pods, namespaces, policies] = &mut self.lists;
        match event {
            Event::Pods(it) => take(&mut self.pods, it, pods, |it| name(&it.name)),
            Event::Namespaces(it) => {
                take(&mut self.namespaces, it, namespaces, |it| it.name.clone())
            }
            Event::Policies(it) => take(&mut self.policies, it, policies, |it| name(&it.name)),
            // Nothing was asked for.
            Event::Answer(_) => {}
            Event::Node(node) => self.node = Some(node),
        }
    }
}

/// Keeps what a change tells. An object that was told as new and is there already, or as gone and
/// is not, would be told twice.
fn take<T>(
    known: &mut BTreeMap<String, T>,
    change: Change<T>,
    lists: &mut usize,
    name: impl Fn(&T) -> String,
) {
    match change {
        Change::Applied(it) => {
            assert!(*lists > 0, "{} is told ahead of the list", name(&it));
            known.insert(name(&it), it);
        }
        Change::Removed(it) => {
            assert!(known.remove(&name(&it)).is_some(), "{} has gone twice", name(&it));
        }
        Change::Listed(all) => {
            *lists += 1;
            *known = all.into_iter().map(|it| (name(&it), it)).collect();
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(agent) = self.agent.take() {
            let ended = agent.join();
            assert!(ended.is_ok() || panicking(), "the source panicked");
        }
    }
}
