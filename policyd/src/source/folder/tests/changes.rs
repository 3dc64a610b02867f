//! Folders that change while they are watched.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::timeout;

use super::super::Folder;
use super::{DENY, POD};
use crate::source::{Change, Event, Node};

/// Nothing here takes this long, unless it hangs.
const BOUND: Duration = Duration::from_secs(20);

/// A folder that a source watches.
struct Watched {
    dir: TempDir,
    runtime: Runtime,
    events: Receiver<Event>,
}

impl Watched {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (sender, events) = channel(4);
        let node = Node { name: "node-1".to_owned(), ..Node::default() };
        let folder = Folder { dir: dir.path().to_owned(), node };
        runtime.spawn(folder.run(sender, |it| panic!("{it}"), |count| assert_eq!(count, 0)));
        Self { dir, runtime, events }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn take(&mut self, count: usize) -> Vec<String> {
        let Self { runtime, events, .. } = self;
        let mut next = || runtime.block_on(async { timeout(BOUND, events.recv()).await });
        (0..count).map(|_| text(next().unwrap().unwrap())).collect()
    }
}

fn text(event: Event) -> String {
    match event {
        Event::Pods(it) => format!("pods {}", change(it, |pod| pod.name.to_string())),
        Event::Namespaces(it) => format!("namespaces {}", change(it, |it| it.name)),
        Event::Policies(it) => format!("policies {}", change(it, |it| it.name.to_string())),
        Event::Answer(pod) => format!("answer {}", pod.name),
        Event::Node(node) => format!("node {}", node.name),
    }
}

fn change<T>(change: Change<T>, name: impl Fn(T) -> String) -> String {
    match change {
        Change::Applied(it) => format!("+{}", name(it)),
        Change::Removed(it) => format!("-{}", name(it)),
        Change::Listed(all) => format!("{:?}", all.into_iter().map(name).collect::<Vec<_>>()),
    }
}

#[test]
fn the_node_and_a_list_of_each_kind_come_first() {
    let mut watched = Watched::new(&[("pod.yaml", POD), ("deny.yml", DENY), ("notes.txt", "{")]);
    assert_eq!(
        watched.take(4),
        ["node node-1", "namespaces [\"shop\"]", "policies [\"shop/deny\"]", "pods [\"shop/web\"]"]
    );
}

#[test]
fn an_empty_folder_is_a_list_of_nothing() {
    let mut watched = Watched::new(&[]);
    assert_eq!(watched.take(4), ["node node-1", "namespaces []", "policies []", "pods []"]);
}

#[test]
fn files_come_change_and_go() {
    let mut watched = Watched::new(&[("pod.yaml", POD)]);
    watched.take(4);
    fs::write(watched.path("deny.yaml"), DENY).unwrap();
    assert_eq!(watched.take(1), ["policies +shop/deny"]);
    let allow = DENY.replace("podSelector: {}", "ingress: [{}]");
    fs::write(watched.path("deny.yaml"), allow).unwrap();
    assert_eq!(watched.take(1), ["policies +shop/deny"]);
    fs::write(watched.path(".new"), DENY.replace("deny", "other")).unwrap();
    fs::rename(watched.path(".new"), watched.path("deny.yaml")).unwrap();
    assert_eq!(watched.take(2), ["policies +shop/other", "policies -shop/deny"]);
    fs::remove_file(watched.path("pod.yaml")).unwrap();
    assert_eq!(watched.take(1), ["pods -shop/web"]);
    fs::remove_file(watched.path("deny.yaml")).unwrap();
    assert_eq!(watched.take(2), ["policies -shop/other", "namespaces -shop"]);
}

#[test]
fn pods_come_after_their_policies_and_go_before_them() {
    let mut watched = Watched::new(&[]);
    watched.take(4);
    fs::write(watched.path("all.yaml"), format!("{POD}---\n{DENY}")).unwrap();
    assert_eq!(watched.take(3), ["namespaces +shop", "policies +shop/deny", "pods +shop/web"]);
    fs::remove_file(watched.path("all.yaml")).unwrap();
    assert_eq!(watched.take(3), ["pods -shop/web", "policies -shop/deny", "namespaces -shop"]);
}
