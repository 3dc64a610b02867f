//! When pods came to be, and when they were ready, as the API server tells a watch.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use e2e::{Bed, await_that};

/// Pods may take this long.
const BOUND: Duration = Duration::from_secs(600);

/// A line for each change of a pod: its name, and whether it is ready.
const LINE: &str =
    r#"jsonpath={.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\n"}"#;

/// A watch of a namespace's pods.
#[derive(Debug)]
pub(crate) struct Watch {
    kubectl: Child,
    seen: Arc<Mutex<BTreeMap<String, Pod>>>,
}

/// When something was told of a pod for the first time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pod {
    pub(crate) created: Instant,
    pub(crate) ready: Option<Instant>,
}

impl Pod {
    /// How long it took, if it is ready.
    pub(crate) fn took(&self) -> Option<Duration> {
        Some(self.ready? - self.created)
    }
}

impl Watch {
    /// Begins, in a namespace without pods.
    pub(crate) fn of(bed: &Bed, namespace: &str) -> Self {
        let words = ["kubectl", "get", "pods", "-n", namespace, "--watch", "-o", LINE];
        let mut kubectl = bed.spawn(1, &words);
        let output = kubectl.stdout.take().expect("it is piped");
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let told = Arc::clone(&seen);
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                note(&mut told.lock().expect("nobody panics with it"), &line);
            }
        });
        Self { kubectl, seen }
    }

    /// Waits until so many pods are ready, and returns all that were seen.
    pub(crate) fn await_ready(&self, pods: usize) -> BTreeMap<String, Pod> {
        let seen = || self.seen.lock().expect("nobody panics with it").clone();
        let ready = || seen().values().filter(|it| it.ready.is_some()).count();
        await_that(&format!("{pods} pods are ready"), BOUND, || ready() >= pods);
        seen()
    }
}

fn note(seen: &mut BTreeMap<String, Pod>, line: &str) {
    let now = Instant::now();
    let Some((name, ready)) = line.split_once(' ') else { return };
    let pod = seen.entry(name.to_owned()).or_insert(Pod { created: now, ready: None });
    if ready == "True" {
        pod.ready.get_or_insert(now);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}
