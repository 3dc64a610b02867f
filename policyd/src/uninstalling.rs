//! `policyd uninstall`: taking policyd away from a cluster. Helm has it run before it deletes what it
//! installed.

use std::time::Duration;

use cluster::{Client, start_log};
use k8s_openapi::api::apps::v1::DaemonSet;
use policyd::chain;
use tokio::time::sleep;

use crate::cli::{Run, Uninstall};
use crate::run::Failure;

/// How often it is looked how many nodes are clean.
const PAUSE: Duration = Duration::from_secs(1);

/// Deletes policyd's DaemonSet, and waits until all nodes are clean. Without end: who has it run
/// knows how long it may take.
pub(crate) fn run(options: &Run, uninstall: &Uninstall) -> Result<(), Failure> {
    start_log(options.log_format);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = cluster::connect(options.kubeconfig.as_deref()).await?;
        let own = client.default_namespace().to_owned();
        let namespace = uninstall.namespace.clone().unwrap_or(own);
        let Uninstall { daemon_set, cleanup, .. } = uninstall;
        // Their pods end, and those that clean wait for that.
        for name in daemon_set {
            let is_gone = cluster::delete::<DaemonSet>(&client, &namespace, name).await?;
            let word = if is_gone { "is being deleted" } else { "is not there" };
            tracing::info!("the DaemonSet {namespace}/{name} {word}");
        }
        wait(&client, &namespace, cleanup).await
    })
}

async fn wait(client: &Client, namespace: &str, name: &str) -> Result<(), Failure> {
    let mut told = String::new();
    loop {
        let words = match cluster::get::<DaemonSet>(client, namespace, name).await {
            Ok(None) => return Err(format!("there is no DaemonSet {namespace}/{name}").into()),
            Ok(Some(daemons)) => match clean_nodes(&daemons) {
                Some((_, 0)) => {
                    tracing::warn!(
                        "the DaemonSet {namespace}/{name} is for none of the nodes (its nodeSelector?): nothing was cleaned"
                    );
                    return Ok(());
                }
                Some((clean, all)) if clean >= all => {
                    tracing::info!("all nodes are clean ({all})");
                    return Ok(());
                }
                Some((clean, all)) => format!("{clean} of {all} nodes are clean"),
                None => "no node is known to be clean yet".to_owned(),
            },
            // The server may be away for a moment.
            Err(error) => chain(&error),
        };
        if words != told {
            tracing::info!("{words}");
            told = words;
        }
        sleep(PAUSE).await;
    }
}

/// How many nodes are clean, and of how many; `None` while that is not known of this version of the
/// DaemonSet.
fn clean_nodes(daemons: &DaemonSet) -> Option<(i32, i32)> {
    let status = daemons.status.as_ref()?;
    let is_of_it = status.observed_generation >= daemons.metadata.generation;
    is_of_it.then_some((status.number_ready, status.desired_number_scheduled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_another_version_says_nothing() {
        let daemons = |text: &str| serde_json::from_str::<DaemonSet>(text).unwrap();
        let status = r#""status": {"desiredNumberScheduled": 3, "numberReady": 2,
            "currentNumberScheduled": 3, "numberMisscheduled": 0, "observedGeneration": 1}"#;
        let of = |generation: i32| {
            let text = format!(r#"{{"metadata": {{"generation": {generation}}}, {status}}}"#);
            clean_nodes(&daemons(&text))
        };
        assert_eq!(of(1), Some((2, 3)));
        assert_eq!(of(2), None);
        assert_eq!(clean_nodes(&daemons(r#"{"metadata": {"generation": 1}}"#)), None);
    }
}
