//! What the log shows of the node's network.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{Defect, Report};
use crate::agent::TokenBucket;

/// So many lines at once, and then one each interval, however much somebody else changes.
const BURST: u32 = 40;
const INTERVAL: Duration = Duration::from_secs(3);
/// So many defects are told at once; of more only the number.
const MOST_TOLD: usize = 20;

/// A line, and whether somebody should look at it.
type Line = (bool, String);

/// Tells of reports. What stands is told once.
#[derive(Debug)]
pub(super) struct Teller {
    defects: BTreeSet<String>,
    state: Result<(), String>,
    lines: TokenBucket,
}

impl Teller {
    pub(super) fn new() -> Self {
        let lines = TokenBucket::new(BURST, INTERVAL, Instant::now());
        // Like none that there is: the first one is told.
        Self { defects: BTreeSet::new(), state: Err(String::new()), lines }
    }

    /// Tells what is new in a report.
    pub(super) fn tell(&mut self, report: &Report, now: Instant) {
        for (is_wrong, line) in self.news(report) {
            match self.lines.take(now) {
                Some(suppressed) if is_wrong => tracing::warn!(suppressed, "{line}"),
                Some(suppressed) => tracing::info!(suppressed, "{line}"),
                None => {}
            }
        }
    }

    fn news(&mut self, report: &Report) -> Vec<Line> {
        let mut lines = done(report);
        let state = report.state();
        if self.state != state {
            lines.push(match &state {
                Ok(()) => (false, "the node's network is in place".to_owned()),
                Err(why) => (true, why.clone()),
            });
            self.state = state;
        }
        lines.extend(self.new_defects(&report.defects).into_iter().map(|it| (true, it)));
        lines
    }

    fn new_defects(&mut self, defects: &[Defect]) -> Vec<String> {
        let standing: BTreeSet<String> = defects.iter().map(ToString::to_string).collect();
        let mut news: Vec<String> = standing.difference(&self.defects).cloned().collect();
        self.defects = standing;
        let more = news.len().saturating_sub(MOST_TOLD);
        news.truncate(MOST_TOLD);
        news.extend((more > 0).then(|| format!("and {more} more of that kind")));
        news
    }
}

/// What was done.
fn done(report: &Report) -> Vec<Line> {
    let (added, removed) = report.changed_routes;
    let repairs = report.repairs;
    let routes = match repairs.routes {
        0 => (false, format!("{added} routes added, {removed} removed")),
        lost => (true, format!("{lost} routes had gone: {added} added, {removed} removed")),
    };
    let repaired =
        |what: &str| (true, format!("somebody changed {what}; it is as it should be again"));
    let lines = [
        (added + removed > 0).then_some(routes),
        repairs.rules.then(|| repaired("the chain that accepts pods' packets")),
        repairs.forwarding.then(|| repaired("the parameter that has the node forward")),
        repairs.file.then(|| repaired("the runtime's list of networks")),
        (report.written.is_some() && !repairs.file)
            .then(|| (false, "the runtime's list of networks is written".to_owned())),
    ];
    lines.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(count: usize) -> Report {
        let defect = |number| Defect::Shadowed { file: format!("{number:03}.conf") };
        Report { defects: (0..count).map(defect).collect(), ..Report::default() }
    }

    #[test]
    fn what_stands_is_told_once_and_of_much_only_how_much() {
        let mut teller = Teller::new();
        let told = teller.news(&report(50));
        assert_eq!(told[0], (false, "the node's network is in place".to_owned()));
        assert_eq!(told.len(), 1 + MOST_TOLD + 1);
        assert_eq!(told.last().unwrap().1, "and 30 more of that kind");
        assert_eq!(teller.news(&report(50)), []);
        assert_eq!(teller.news(&report(0)), []);
        assert_eq!(teller.news(&report(1)).len(), 1);
    }

    #[test]
    fn a_state_is_told_when_it_changes() {
        let mut teller = Teller::new();
        let waiting = || Report { awaits_policy: true, ..Report::default() };
        assert!(teller.news(&waiting())[0].0);
        assert_eq!(teller.news(&waiting()), []);
        assert_eq!(teller.news(&Report::default()).len(), 1);
    }
}
