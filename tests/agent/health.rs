//! What is answered by a policyd whose loop stands still.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use lab::Node;
use policyd::agent::Status;
use policyd::counters::Reader;
use policyd::dataplane::Programs;
use policyd::health;
use policyd::iptables::Family;
use policyd::metrics::Metrics;
use runner::OsRunner;
use tokio::runtime::Builder;

/// Within this a loop that goes round has shown so.
const SILENCE: Duration = Duration::from_secs(31);

/// Nothing holds the loop of a policyd that runs: its part, to show that it is alive, is played here.
#[test]
fn a_loop_that_stands_still_is_told_until_it_goes_on() {
    let node = Node::quick();
    let status = Arc::new(Status::new(Metrics::new()));
    let served = Arc::clone(&status);
    let listener = node.enter(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 9099))).unwrap();
    listener.set_nonblocking(true).unwrap();
    // It ends with the test.
    let _server = node.spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = listener.try_into().unwrap();
            let counters = Reader::new(Programs::new(OsRunner, ""), Family::ALL.into());
            health::serve(listener, served, counters).await;
        });
    });
    let ask = || node.sh("curl -s --max-time 5 -w '%{http_code}' http://127.0.0.1:9099/healthz");
    assert_eq!(ask(), "ok\n200");
    sleep(SILENCE);
    assert_eq!(ask(), "the loop stands still\n503");
    status.beat();
    assert_eq!(ask(), "ok\n200");
}
