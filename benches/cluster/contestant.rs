//! Whose plugins wire pods, and how long containerd takes for that.

use std::time::Duration;

use e2e::Bed;
use testbed::files::METRICS;

/// Whose plugins a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plugins {
    /// podwire's.
    Podwire,
    /// The reference plugins.
    Go,
}

/// What containerd has plugins do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work {
    /// Wire a pod: ADD of all plugins, loopback's among them.
    Add,
    /// The reverse.
    Del,
}

/// How much of it there was, and how long it took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    pub(crate) times: u32,
    pub(crate) took: Duration,
}

impl Plugins {
    pub(crate) const BOTH: [Self; 2] = [Self::Podwire, Self::Go];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Podwire => "podwire",
            Self::Go => "Go plugins",
        }
    }

    /// Has the node's pods wired by these: each name is replaced by one rename. The list stays, and
    /// with it podwire-policy at its end, which the reference plugins have nothing like.
    pub(crate) fn take_over(self, bed: &Bed) {
        let copy = match self {
            Self::Podwire => "cp -P /opt/cni/podwire/$name $name.new",
            Self::Go => "ln -s /opt/testbed/$name $name.new",
        };
        bed.on(
            1,
            &format!(
                "cd /opt/cni/bin; for name in {NAMES}; do {copy}; mv -T $name.new $name; done"
            ),
        );
    }
}

/// What both have of what the list calls.
const NAMES: &str = "ptp host-local loopback";

/// Keeps podwire's own links.
pub(crate) fn prepare(bed: &Bed) {
    bed.on(
        1,
        &format!("mkdir -p /opt/cni/podwire; cd /opt/cni/bin; cp -P {NAMES} /opt/cni/podwire"),
    );
}

impl Work {
    /// All of it since containerd was started.
    pub(crate) fn spent(self, bed: &Bed) -> Spent {
        let metrics = bed.on(1, &format!("curl -sf http://{METRICS}/v1/metrics"));
        let kind = match self {
            Self::Add => "set_up_pod",
            Self::Del => "tear_down_pod",
        };
        let value = |end: &str| -> f64 {
            let mut lines =
                metrics.lines().filter(|it| it.contains("network_plugin_operations_duration"));
            let line = lines.find(|it| {
                it.contains(kind) && it.split('{').next().is_some_and(|name| name.ends_with(end))
            });
            line.and_then(|it| it.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
        };
        Spent { times: value("_count") as u32, took: Duration::from_secs_f64(value("_sum")) }
    }
}

impl Spent {
    /// What one took on the average, of those since `before`.
    pub(crate) fn mean_since(self, before: Self) -> Duration {
        (self.took - before.took) / (self.times - before.times).max(1)
    }
}
