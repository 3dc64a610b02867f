//! Transactions of others: how long they wait while a contestant's are at work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use lab::Node;
use netlink::nftables::{Change, Client};
use ruleset::nft::{Family, Table};

const PAUSE: Duration = Duration::from_millis(5);

/// Somebody who has a table of their own on the node, and makes it again and again: the kernel takes the lock of all tables
/// of the node for that, and changes nothing.
#[derive(Debug)]
pub(crate) struct Others {
    is_over: Arc<AtomicBool>,
    longest: JoinHandle<Duration>,
}

impl Others {
    pub(crate) fn start(node: &Node) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_over);
        let longest = node.spawn(move || {
            let mut client = Client::open().ok().flatten().expect("the kernel has nf_tables");
            let table = Table { family: Family::Ip, name: "others" };
            let mut longest = Duration::ZERO;
            while !seen.load(Ordering::Relaxed) {
                let begun = Instant::now();
                client.change(table, &[Change::Table(None)]).expect("a table of ours");
                longest = longest.max(begun.elapsed());
                sleep(PAUSE);
            }
            longest
        });
        Self { is_over, longest }
    }

    /// Ends; the longest that one took.
    pub(crate) fn end(self) -> Duration {
        self.is_over.store(true, Ordering::Relaxed);
        self.longest.join().expect("it does not panic")
    }
}
