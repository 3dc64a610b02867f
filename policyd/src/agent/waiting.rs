//! Who waits for a commit: calls of the CNI plugin.

use std::mem::take;

use crate::attachments::Reply;
use crate::index::Index;

/// The calls that are not answered yet. Who called may be gone; it costs nothing to answer.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Not part of any write yet: of attached containers with the id.
    queued: Vec<(Option<String>, Reply)>,
    /// Answered when what is being written is in the kernel.
    writing: Vec<(Option<String>, Reply)>,
}

/// As many wait at once; more are sent away, to come again.
const MOST: usize = 4096;

impl Waiting {
    pub(super) fn push(&mut self, container_id: Option<String>, reply: Reply) {
        if self.queued.len() + self.writing.len() >= MOST {
            // Who has gone meanwhile is not waited for.
            _ = reply.send(Err("too many calls wait for policyd".to_owned()));
            return;
        }
        self.queued.push((container_id, reply));
    }

    /// What is in the index now is being written. An attached container whose pod is not known yet
    /// waits for a later write.
    pub(super) fn begin(&mut self, index: &Index) {
        let (known, unknown): (Vec<_>, Vec<_>) = take(&mut self.queued)
            .into_iter()
            .filter(|(_, reply)| !reply.is_closed())
            .partition(|(id, _)| id.as_ref().is_none_or(|id| index.has_endpoint(id)));
        self.writing.extend(known);
        self.queued = unknown;
    }

    /// What was being written is in the kernel, or is not.
    pub(super) fn end(&mut self, is_written: bool) {
        let writing = take(&mut self.writing);
        if is_written {
            // Who has gone meanwhile is not waited for.
            writing.into_iter().for_each(|(_, reply)| _ = reply.send(Ok(())));
        } else {
            self.queued.extend(writing);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }
}
