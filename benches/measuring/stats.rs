//! Medians and percentiles.

use std::time::Duration;

/// Times of one kind of call.
#[derive(Debug, Clone, Default)]
pub struct Series(Vec<Duration>);

impl Series {
    /// Takes in one more.
    pub fn push(&mut self, took: Duration) {
        let place = self.0.partition_point(|other| *other < took);
        self.0.insert(place, took);
    }

    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The median in milliseconds; `None` without measurements.
    #[must_use]
    pub fn median(&self) -> Option<f64> {
        self.quantile(0.5)
    }

    /// The 99th percentile in milliseconds: of fewer than a hundred, the longest.
    #[must_use]
    pub fn p99(&self) -> Option<f64> {
        self.quantile(0.99)
    }

    /// The longest in milliseconds; `None` without measurements.
    #[must_use]
    pub fn longest(&self) -> Option<f64> {
        self.quantile(1.0)
    }

    fn quantile(&self, quantile: f64) -> Option<f64> {
        let place = (quantile * self.0.len() as f64).ceil() as usize;
        self.0.get(place.saturating_sub(1)).map(|took| took.as_secs_f64() * 1000.0)
    }
}

/// The median of figures; `None` of none.
#[must_use]
pub fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// By how much the greatest is above the least, in percent; `None` of none.
#[must_use]
pub fn spread(figures: &[f64]) -> Option<f64> {
    let least = figures.iter().copied().reduce(f64::min)?;
    let most = figures.iter().copied().reduce(f64::max)?;
    Some((most / least - 1.0) * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_measured_values() {
        let mut series = Series::default();
        assert_eq!(series.median(), None);
        for millis in [5, 1, 4, 2, 3] {
            series.push(Duration::from_millis(millis));
        }
        assert_eq!((series.median(), series.p99()), (Some(3.0), Some(5.0)));
        (6..=200).for_each(|millis| series.push(Duration::from_millis(millis)));
        assert_eq!((series.median(), series.p99()), (Some(100.0), Some(198.0)));
    }
}
