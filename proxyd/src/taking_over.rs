//! Taking kube-proxy's place: removing what it has left, once it has ended.

use std::sync::Arc;
use std::time::Duration;

use cluster::{LogFormat, start_log};
use proxyd::agent::{Readiness, Status};
use proxyd::dataplane::Dataplane;
use proxyd::localhost;
use proxyd::nftables::Settings;
use proxyd::takeover::{self, Error, Removed};
use runner::OsRunner;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::run::{Failure, blocking, families};

/// How often it is looked whether kube-proxy has ended: until its rules have gone, they lead where its endpoints were.
const UNTIL_IT_ENDS: Duration = Duration::from_secs(1);
/// After this long what has failed is tried again.
const AGAIN: Duration = Duration::from_secs(10);
/// How often it is looked whether it is back.
const UNTIL_IT_IS_BACK: Duration = Duration::from_secs(10);

/// `proxyd takeover`.
pub(crate) fn once() -> Result<(), Failure> {
    start_log(LogFormat::Text);
    tell(takeover::run(&mut OsRunner, &families())?);
    Ok(())
}

/// `--takeover`: the same whenever kube-proxy has ended, for as long as proxyd runs. One that does not tell its mode at the usual
/// place is known by the place where load balancers ask: `has_place` tells whether that is ours.
pub(crate) async fn each_time(status: Arc<Status>, has_place: watch::Receiver<bool>) {
    loop {
        take_over(&status, &has_place).await;
        await_its_return().await;
    }
}

async fn take_over(status: &Status, has_place: &watch::Receiver<bool>) {
    let mut is_told = false;
    loop {
        sleep(UNTIL_IT_ENDS).await;
        if status.readiness() != Readiness::Ready {
            continue;
        }
        let is_alone = *has_place.borrow();
        let result = match is_alone {
            true => Some(blocking(|| takeover::run(&mut OsRunner, &families())).await),
            false => None,
        };
        match result {
            Some(Ok(removed)) => return tell(removed),
            Some(Err(Error::Running(_))) | None if is_told => {}
            Some(Err(error @ Error::Running(_))) => {
                tracing::info!("{error}");
                is_told = true;
            }
            None => {
                tracing::info!(
                    "another process has the place where load balancers ask (--listen), which may be kube-proxy: what that has written stays until it has ended"
                );
                is_told = true;
            }
            Some(Err(error)) => {
                let error = cluster::chain(&error);
                tracing::warn!("{error}; what kube-proxy has left is there, and is tried again");
                sleep(AGAIN).await;
            }
        }
    }
}

/// Ends when kube-proxy runs again.
async fn await_its_return() {
    let mut is_told = false;
    loop {
        sleep(UNTIL_IT_IS_BACK).await;
        if let Some(mode) = blocking(takeover::running).await {
            return tracing::warn!(
                "kube-proxy runs on this node again, in mode {mode}, beside proxyd: one of the two should be taken off it"
            );
        }
        let has_rules = blocking(|| takeover::has_rules(&families())).await;
        if !is_told && has_rules.is_ok_and(|it| it) {
            tracing::warn!(
                "rules of kube-proxy's are there again after they were removed: it still runs on this node, or did so since (stop it there, and call `proxyd takeover`)"
            );
            is_told = true;
        }
    }
}

fn tell(removed: Removed) {
    let Removed { tables, chains, jumps } = removed;
    if removed == Removed::default() {
        tracing::info!("nothing of kube-proxy's is left on this node");
    } else {
        tracing::info!(tables, chains, jumps, "what kube-proxy has left is removed");
    }
    // kube-proxy sets it in mode iptables, and the kubelet's chain guards what it opens, for as long as that is there.
    if localhost::is_routed() && !guards_localhost() {
        tracing::warn!(
            "net.ipv4.conf.all.route_localnet is still 1, as kube-proxy of mode iptables sets it: neighbours reach this node's 127.0.0.0/8 unless other rules, such as the kubelet's KUBE-FIREWALL, keep them out (set it to 0 where nothing else needs it)"
        );
    }
}

/// Whether our own rules do.
fn guards_localhost() -> bool {
    let dataplane = Dataplane::open(&Settings::default(), &[]);
    dataplane.and_then(|mut it| it.guards_localhost()).unwrap_or(false)
}
