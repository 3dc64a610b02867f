//! What is to be reached, and whether it was.

use crate::number;

/// A bound on what was measured.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    /// So many times faster than somebody, or more.
    Faster(f64, &'static str),
    /// So many of a unit, or less.
    AtMost(f64, &'static str),
    /// So many of a unit, or more.
    AtLeast(f64, &'static str),
}

/// One target.
#[derive(Debug)]
pub struct Target {
    /// What is measured.
    pub work: String,
    /// What it should be.
    pub bound: Bound,
    /// What it is; `None` if it was not measured.
    pub measured: Option<f64>,
}

impl Target {
    /// The head of a table of targets.
    pub const HEAD: [&'static str; 4] = ["work", "to reach", "measured", ""];

    /// Its row in a table.
    #[must_use]
    pub fn row(&self) -> Vec<String> {
        let measured = self.measured.map_or("not measured".to_owned(), |it| number(Some(it)));
        let (wanted, measured, is_reached) = match self.bound {
            Bound::Faster(bound, than) => (
                format!(">= {bound}x faster than {than}"),
                format!("{measured}x"),
                self.measured.map(|it| it >= bound),
            ),
            Bound::AtMost(bound, unit) => (
                format!("<= {bound} {unit}"),
                format!("{measured} {unit}"),
                self.measured.map(|it| it <= bound),
            ),
            Bound::AtLeast(bound, unit) => (
                format!(">= {bound} {unit}"),
                format!("{measured} {unit}"),
                self.measured.map(|it| it >= bound),
            ),
        };
        let verdict = match is_reached {
            Some(true) => "reached",
            Some(false) => "**not reached**",
            None => "–",
        };
        vec![self.work.clone(), wanted, measured, verdict.to_owned()]
    }
}
