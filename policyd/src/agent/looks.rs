//! Looks at the kernel that fail: when each is taken again, and what is told of that.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::retry::Retry;

/// The same failure is not told again sooner.
const TOLD_LASTS: Duration = Duration::from_mins(1);

/// What looks at what the kernel holds, and does not write what came. What a survey finds wrong it puts right, which is
/// as good later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Look {
    /// Ahead of the first write.
    Read,
    /// Whether rules are as they were left.
    Compare,
    /// Whether they may not be.
    Glance,
    /// At links.
    Survey,
}

/// How the looks of each kind have fared. One that fails holds up none of the others.
#[derive(Debug, Default)]
pub(super) struct Looks(BTreeMap<Look, Failing>);

/// A kind of which the last one failed.
#[derive(Debug)]
struct Failing {
    retry: Retry,
    told: Option<(String, Instant)>,
}

impl Looks {
    /// One has failed; how long this kind rests now, and whether it is to be told why.
    pub(super) fn fail(&mut self, look: Look, why: &str) -> (Duration, bool) {
        let failing =
            self.0.entry(look).or_insert_with(|| Failing { retry: Retry::default(), told: None });
        let is_told = |(told, time): &(String, Instant)| told == why && time.elapsed() < TOLD_LASTS;
        let is_news = !failing.told.as_ref().is_some_and(is_told);
        if is_news {
            failing.told = Some((why.to_owned(), Instant::now()));
        }
        (failing.retry.fail(), is_news)
    }

    /// One has succeeded.
    pub(super) fn succeed(&mut self, look: Look) {
        self.0.remove(&look);
    }

    /// When one is due that would be at this time.
    pub(super) fn due(&self, look: Look, time: Instant) -> Instant {
        let next = self.0.get(&look).and_then(|it| it.retry.next());
        next.map_or(time, |next| next.max(time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_taken_again_later_and_later_whatever_becomes_of_others() {
        let (mut looks, now) = (Looks::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..10 {
            pauses.push(looks.fail(Look::Survey, "why").0);
            looks.succeed(Look::Compare);
            assert_eq!(looks.due(Look::Compare, now), now);
        }
        assert!(
            pauses.is_sorted() && pauses.last() == Some(&Duration::from_secs(10)),
            "{pauses:?}"
        );
        assert!(looks.due(Look::Survey, now) > now + Duration::from_secs(9));
        looks.succeed(Look::Survey);
        assert_eq!(looks.due(Look::Survey, now), now);
    }

    #[test]
    fn a_failure_is_told_once_for_a_while() {
        let mut looks = Looks::default();
        let told = ["one", "one", "other", "other"].map(|it| looks.fail(Look::Survey, it).1);
        assert_eq!(told, [true, false, true, false]);
        assert!(looks.fail(Look::Glance, "other").1);
    }
}
