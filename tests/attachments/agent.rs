//! policyd's part: its server, and a loop that brings what is attached into the kernel at once.

use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::thread::{self, JoinHandle};

use lab::{Node, by_nftables};
use policyd::attachment::Attachment;
use policyd::attachments::{Places, Reply, Request, Server};
use policyd::dataplane::{Dataplane, Kind, Programs};
use policyd::index::Index;
use policyd::iptables::{Family, Settings};
use runner::OsRunner;
use tokio::sync::{mpsc, oneshot};

/// What the loop does when it is asked for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// What it shall.
    Works,
    /// Nothing, and it does not answer.
    Hangs,
    /// It ends, and the server with it.
    Dies,
    /// It says that the kernel refuses.
    Fails,
}

/// policyd; it ends when this is dropped, and leaves the kernel as it is.
#[derive(Debug)]
pub(crate) struct Agent {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The sockets and files as this process sees them.
pub(crate) fn places(node: &Node) -> Places {
    let folder = node.run_dir().join("podwire");
    Places { socket: folder.join("policyd.sock"), files: folder.join("attachments") }
}

/// The rules of a node that policyd knows, with its gate.
pub(crate) fn dataplane() -> Dataplane<OsRunner> {
    let gated = ["10.1.0.0/16", "fd00:1::/64"].map(|range| range.parse().unwrap());
    let settings = Settings { gated: gated.into(), ..Settings::default() };
    let kind = if by_nftables() { Kind::Nftables } else { Kind::Iptables };
    Dataplane::new(kind, Programs::new(OsRunner, ""), &Family::ALL, settings)
}

impl Agent {
    /// Starts on a node; when this returns the plan of the attachments in the files is in force.
    pub(crate) fn start(node: &Arc<Node>, manner: Manner) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std_mpsc::channel();
        let node = Arc::clone(node);
        let work = move || {
            let places = places(&node);
            node.enter(|| {
                let builder = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = builder.expect("a runtime");
                runtime.block_on(async {
                    tokio::select! {
                        () = run(&places, manner, ready) => {}
                        _ = stopped => {}
                    }
                });
            });
        };
        let thread = Some(thread::spawn(work));
        is_ready.recv().expect("the agent starts");
        Self { stop: Some(stop), thread }
    }

    /// Waits for one that dies.
    pub(crate) fn wait(mut self) {
        self.thread.take().unwrap().join().expect("the agent ends");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // One that has died hears nothing.
        let _ = self.stop.take().unwrap().send(());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the agent ends");
        }
    }
}

async fn run(places: &Places, manner: Manner, ready: std_mpsc::Sender<()>) {
    let (requests, mut received) = mpsc::channel(64);
    let (server, first) = Server::bind(places, requests).expect("the folder is there");
    let mut state = State { index: Index::new("node-1"), dataplane: dataplane() };
    state.adopt(first);
    tokio::spawn(server.run());
    ready.send(()).expect("the test waits");
    let mut held = Vec::new();
    while let Some(request) = received.recv().await {
        match manner {
            Manner::Works => {
                let more = std::iter::from_fn(|| received.try_recv().ok());
                state.serve(std::iter::once(request).chain(more));
            }
            Manner::Hangs => held.push(request),
            Manner::Dies => return,
            Manner::Fails => {
                let (Request::Attach { reply, .. }
                | Request::Detach { reply, .. }
                | Request::Status { reply }) = request;
                answer(reply, Err("the kernel refuses".into()));
            }
        }
    }
}

struct State {
    index: Index,
    dataplane: Dataplane<OsRunner>,
}

impl State {
    fn adopt(&mut self, first: Vec<Attachment>) {
        first.into_iter().for_each(|it| self.index.attach(it));
        let _ = self.index.take_changes();
        self.dataplane.adopt(&self.index.plan()).expect("the kernel takes it");
        self.open();
    }

    /// What the plugin closed.
    fn open(&self) {
        self.dataplane.open_interfaces(|_| Ok(false)).expect("the kernel takes it");
    }

    /// All that have come are one write.
    fn serve(&mut self, requests: impl Iterator<Item = Request>) {
        let replies: Vec<Reply> = requests.map(|request| self.take_in(request)).collect();
        let changes = self.index.take_changes();
        if self.dataplane.needs_adoption(&changes) {
            self.dataplane.adopt(&self.index.plan()).expect("the kernel takes it");
        } else if !changes.is_empty() {
            self.dataplane.apply(&changes).expect("the kernel takes it");
        }
        self.open();
        replies.into_iter().for_each(|reply| answer(reply, Ok(())));
    }

    fn take_in(&mut self, request: Request) -> Reply {
        match request {
            Request::Attach { attachment, reply } => {
                self.index.attach(attachment);
                reply
            }
            Request::Detach { container_id, reply } => {
                self.index.detach(&container_id);
                reply
            }
            Request::Status { reply } => reply,
        }
    }
}

fn answer(reply: Reply, answer: Result<(), String>) {
    // Who asked may have gone.
    let _ = reply.send(answer);
}
