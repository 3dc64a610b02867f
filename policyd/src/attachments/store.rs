//! The attachments of this node, in memory as in the files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use attachment::{Attachment, Error, Files, Key};

#[derive(Debug)]
pub(super) struct Store {
    files: Files,
    held: BTreeMap<String, Attachment>,
}

/// What others changed of the files.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) come: Vec<Attachment>,
    pub(super) gone: Vec<String>,
    pub(super) problems: Vec<Error>,
}

impl Store {
    /// That of a folder; [`Self::refresh`] reads it.
    pub(super) fn new(folder: &Path) -> Self {
        Self { files: Files::new(folder), held: BTreeMap::new() }
    }

    /// Takes in what the plugin changed while nobody answered it. Files of attachments whose place a
    /// later one took are removed.
    pub(super) fn refresh(&mut self) -> Result<Changes, Error> {
        let (listed, mut problems) = self.files.list()?;
        let mut former = BTreeSet::new();
        for (place, attachment) in listed.iter().enumerate() {
            let later = listed.get(place + 1..).unwrap_or_default();
            if later.iter().any(|it| takes_place(it, attachment)) {
                problems.extend(self.files.remove(&attachment.container_id).err());
                former.insert(attachment.container_id.clone());
            }
        }
        let listed = listed.into_iter().filter(|it| !former.contains(&it.container_id));
        let listed: Vec<_> = listed.collect();
        let mut changes = Changes { problems, ..Changes::default() };
        let ids: BTreeSet<_> = listed.iter().map(|it| it.container_id.clone()).collect();
        changes.gone = self.held.keys().filter(|id| !ids.contains(*id)).cloned().collect();
        for attachment in listed {
            if self.held.get(&attachment.container_id) != Some(&attachment) {
                self.held.insert(attachment.container_id.clone(), attachment.clone());
                changes.come.push(attachment);
            }
        }
        self.held.retain(|id, _| ids.contains(id));
        Ok(changes)
    }

    /// Writes an attachment down. Those whose place it takes are forgotten; returns their ids.
    pub(super) fn put(&mut self, attachment: Attachment) -> Result<Vec<String>, Error> {
        let former = self.held.values().filter(|held| takes_place(&attachment, held));
        let former: Vec<_> = former.map(|it| it.container_id.clone()).collect();
        former.iter().try_for_each(|container_id| self.remove(container_id))?;
        self.files.put(&attachment)?;
        self.held.insert(attachment.container_id.clone(), attachment);
        Ok(former)
    }

    /// By which other interface the container is attached.
    pub(super) fn other_interface(&self, key: &Key) -> Option<&str> {
        let held = self.held.get(&key.container_id)?;
        (held.ifname != key.ifname).then_some(held.ifname.as_str())
    }

    /// That attachment, as the files have it where it is not in memory yet.
    pub(super) fn find(&self, key: &Key) -> Result<Option<Attachment>, Error> {
        let held = match self.held.get(&key.container_id) {
            Some(held) => Some(held.clone()),
            None => self.files.get(&key.container_id)?,
        };
        Ok(held.filter(|held| held.ifname == key.ifname))
    }

    pub(super) fn remove(&mut self, container_id: &str) -> Result<(), Error> {
        self.files.remove(container_id)?;
        self.held.remove(container_id);
        Ok(())
    }

    /// The containers of a network that are not among those with a valid attachment.
    pub(super) fn garbage(&self, network: &str, valid: &[Key]) -> Vec<String> {
        let of_network = self.held.values().filter(|it| it.network == network);
        let invalid = of_network.filter(|it| !valid.contains(&it.key()));
        invalid.map(|it| it.container_id.clone()).collect()
    }
}

/// Whether the one has the place that the other had before: no address is given away twice, and no pod
/// has two sandboxes, so the other is gone, and only nobody said so.
fn takes_place(attachment: &Attachment, other: &Attachment) -> bool {
    other.container_id != attachment.container_id
        && (!other.addresses.is_disjoint(&attachment.addresses)
            || other.pod.is_some() && other.pod == attachment.pod)
}
