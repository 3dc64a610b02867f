//! How long new pods waited for what concerns them to be in the kernel.

use std::collections::BTreeMap;
use std::mem::take;
use std::time::Instant;

use prometheus_client::metrics::histogram::Histogram;

use crate::metrics::Metrics;

/// As many are measured at once; what comes while there are so many is not.
const MOST: usize = 4096;

/// What has begun to wait, and since when.
#[derive(Debug, Default)]
pub(super) struct Delays {
    /// Containers, by id, whose rules are not being written yet.
    attached: BTreeMap<String, Instant>,
    /// Pods, by uid, that an address was just told of.
    addressed: BTreeMap<String, Instant>,
    /// Of both, those whose write is under way.
    writing: [BTreeMap<String, Instant>; 2],
}

impl Delays {
    /// A container was attached that has no rules yet.
    pub(super) fn attach(&mut self, container_id: &str) {
        begin(&mut self.attached, container_id);
    }

    /// It has gone, and nobody waits for its rules any more.
    pub(super) fn detach(&mut self, container_id: &str) {
        self.attached.remove(container_id);
    }

    /// A pod's address was told that was not known before.
    pub(super) fn address(&mut self, pod: &str) {
        begin(&mut self.addressed, pod);
    }

    /// What is known is being written: all addresses, and the rules of the containers that are part
    /// of the plan.
    pub(super) fn write(&mut self, is_planned: impl Fn(&str) -> bool) {
        let (planned, waiting) =
            take(&mut self.attached).into_iter().partition(|it| is_planned(&it.0));
        self.attached = waiting;
        let [attached, addressed] = &mut self.writing;
        attached.extend::<BTreeMap<_, _>>(planned);
        addressed.append(&mut self.addressed);
    }

    /// What has come changed nothing in the kernel.
    pub(super) fn forget(&mut self) {
        self.writing = Default::default();
    }

    /// What was being written is in the kernel, or is not.
    pub(super) fn end(&mut self, is_written: bool, metrics: &Metrics) {
        let [attached, addressed] = take(&mut self.writing);
        if is_written {
            observe(attached, &metrics.attachment_to_kernel_seconds);
            observe(addressed, &metrics.address_to_kernel_seconds);
        } else {
            self.attached.extend(attached);
            self.addressed.extend(addressed);
        }
    }
}

fn begin(waiting: &mut BTreeMap<String, Instant>, key: &str) {
    if waiting.len() < MOST {
        waiting.entry(key.to_owned()).or_insert_with(Instant::now);
    }
}

fn observe(waited: BTreeMap<String, Instant>, histogram: &Histogram) {
    waited.into_values().for_each(|since| histogram.observe(since.elapsed().as_secs_f64()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(metrics: &Metrics) -> Vec<String> {
        let text = metrics.text();
        let lines = text.lines().filter(|it| it.contains("_to_kernel_seconds_count"));
        lines.map(str::to_owned).collect()
    }

    fn expected(attachments: u32, addresses: u32) -> Vec<String> {
        let line = |what, count| format!("policyd_{what}_to_kernel_seconds_count {count}");
        vec![line("event", 0), line("attachment", attachments), line("address", addresses)]
    }

    #[test]
    fn what_waits_is_measured_once_it_is_written() {
        let (mut delays, metrics) = (Delays::default(), Metrics::new());
        ["planned", "unknown", "gone"].iter().for_each(|it| delays.attach(it));
        delays.detach("gone");
        delays.address("pod");
        delays.write(|id| id != "unknown");
        // Told while the write is under way.
        delays.address("next");
        delays.end(false, &metrics);
        assert_eq!(counts(&metrics), expected(0, 0));
        delays.write(|id| id != "unknown");
        delays.end(true, &metrics);
        assert_eq!(counts(&metrics), expected(1, 2));
        delays.write(|_| true);
        delays.end(true, &metrics);
        assert_eq!(counts(&metrics), expected(2, 2));
    }

    #[test]
    fn no_more_are_measured_than_there_is_room_for() {
        let (mut delays, metrics) = (Delays::default(), Metrics::new());
        (0..MOST + 10).for_each(|it| delays.address(&it.to_string()));
        delays.write(|_| true);
        delays.end(true, &metrics);
        assert_eq!(counts(&metrics), expected(0, u32::try_from(MOST).unwrap()));
    }
}
