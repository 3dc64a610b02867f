//! All that was measured.

use crate::connections::Connections;
use crate::contestant::Contestant;
use crate::crowd::Crowd;
use crate::memory::Memory;
use crate::rate::{Rate, Way};
use crate::rounds::Measured;
use crate::work::Work;
use measuring::Series;

/// Results of a run.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) facts: Vec<(&'static str, String)>,
    pub(crate) calls: Vec<Measured>,
    /// Crowds of Go and podwire, with how many pods.
    pub(crate) small_crowd: Option<(usize, [Crowd; 2])>,
    pub(crate) large_crowd: Option<(usize, [Crowd; 2])>,
    pub(crate) connections: Vec<Connections>,
    pub(crate) rates: Vec<Rate>,
    pub(crate) memory: Vec<Memory>,
    pub(crate) sizes: Vec<(&'static str, u64)>,
}

/// Which of an attachment's two calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Add,
    Del,
}

impl Measured {
    /// The times of one verb.
    pub(crate) fn of(&self, verb: Verb) -> &[Series; 3] {
        match verb {
            Verb::Add => &self.add,
            Verb::Del => &self.del,
        }
    }
}

impl Results {
    /// The median of a call in milliseconds.
    pub(crate) fn median(&self, work: Work, verb: Verb, contestant: Contestant) -> Option<f64> {
        let measured = self.calls.iter().find(|measured| measured.work == work)?;
        measured.of(verb).get(contestant as usize)?.median()
    }

    /// Connections a second.
    pub(crate) fn connections(&self, work: Work, contestant: Contestant) -> Option<f64> {
        let is_it = |it: &&Connections| it.work == work && it.contestant == contestant;
        self.connections.iter().find(is_it)?.median()
    }

    /// The share of what was asked of bandwidth one way that came through.
    pub(crate) fn rate(&self, way: Way, contestant: Contestant) -> Option<&Rate> {
        self.rates.iter().find(|it| it.way == way && it.contestant == contestant)
    }
}
