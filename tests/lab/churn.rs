//! Somebody who changes nf_tables all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, panicking, sleep};
use std::time::Duration;

use netlink::nftables::{Change, Client};
use ruleset::nft::{Chain, Family, Match, Rule, Table, Verdict};

use crate::Space;

const TABLE: Table<'_> = Table { family: Family::Inet, name: "churn" };
/// A long list is interrupted several times meanwhile.
const PAUSE: Duration = Duration::from_micros(300);

/// Changes a table of its own, `inet churn`, thousands of times in a second, as kube-proxy may on a large cluster, until it
/// is dropped; then the table goes.
#[derive(Debug)]
pub struct Churn {
    is_done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Churn {
    /// Begins, in the namespace of a node.
    #[must_use]
    pub fn start(space: &Space) -> Self {
        let is_done = Arc::new(AtomicBool::new(false));
        let sees = Arc::clone(&is_done);
        Self { is_done, thread: Some(space.spawn(move || churn(&sees))) }
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.is_done.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(panicking() || !matches!(ended, Some(Err(_))), "nf_tables refused the churn");
    }
}

fn churn(is_done: &AtomicBool) {
    let mut client = Client::open().expect("root may").expect("the kernel has nf_tables");
    let chain = Chain { name: "c", base: None, comment: None };
    let rule = Rule::new([Match::Protocol(6)], Verdict::Return);
    let come = [Change::Table(None), Change::Chain(&chain), Change::Rule("c", &rule)];
    while !is_done.load(Ordering::Relaxed) {
        client.change(TABLE, &come).expect("a rule comes");
        client.change(TABLE, &[Change::Empty("c")]).expect("it goes");
        sleep(PAUSE);
    }
    client.remove(TABLE).expect("it can go");
}
