//! The objects of all files together, and what changes between two readings: pure.

use std::collections::BTreeMap;
use std::path::Path;

use super::manifest::Manifest;
use super::report::{Place, Report};
use super::{Identity, Kinds, Objects};
use crate::Change;

/// The objects of a folder.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contents<T> {
    objects: Objects<T>,
    /// Where they are.
    places: BTreeMap<Identity, Place>,
}

impl<T: Clone + PartialEq> Contents<T> {
    /// The objects of these files, and those that are there without. Of several of one name that one counts which did
    /// `before`: a copy that lies about must not take the place of what is in force. Else it is the first, in the
    /// order of the files.
    pub(super) fn of<'a>(
        files: impl IntoIterator<Item = (&'a Path, &'a Manifest<T>)>,
        kinds: &impl Kinds<Object = T>,
        before: Option<&Self>,
    ) -> (Self, Vec<Report>)
    where
        T: 'a,
    {
        let (mut objects, mut places) = (Objects::new(), BTreeMap::<_, Place>::new());
        let mut reports = Vec::new();
        for (file, manifest) in files {
            for entry in &manifest.objects {
                let identity = &entry.identity;
                let place = Place { file: file.to_owned(), document: entry.document };
                let held = before.and_then(|it| it.places.get(identity));
                let was_held = held.is_some_and(|it| it.file == file);
                let other = places.get(identity).cloned();
                let counts = other.as_ref().is_none_or(|it| was_held && it.file != file);
                if counts {
                    objects.insert(identity.clone(), entry.object.clone());
                    places.insert(identity.clone(), place.clone());
                }
                if let Some(other) = other {
                    let (kind, name) = identity.clone();
                    let (kept, ignored) = if counts { (place, other) } else { (other, place) };
                    reports.push(Report::Duplicate { kind, name, kept, ignored });
                }
            }
        }
        kinds.complete(&mut objects);
        (Self { objects, places }, reports)
    }

    /// Keeps what an `earlier` pass has found, as it was `before`: what this one alone has not may have moved to a file that
    /// was read before it was there.
    pub(super) fn keep(&mut self, earlier: Self, before: Option<&Self>) {
        let Self { objects, mut places } = earlier;
        for (identity, object) in objects {
            if self.objects.contains_key(&identity) {
                continue;
            }
            let held = before.and_then(|it| it.objects.get(&identity)).cloned();
            let Some(place) = places.remove(&identity) else { continue };
            self.objects.insert(identity.clone(), held.unwrap_or(object));
            self.places.insert(identity, place);
        }
    }

    /// All of it, as the first list.
    pub(super) fn listed(&self) -> Change<T> {
        Change::Listed(self.objects.values().cloned().collect())
    }

    /// What has changed since `before`: what is new or otherwise, and then what is gone.
    pub(super) fn since(&self, before: &Self) -> Vec<Change<T>> {
        let (now, before) = (&self.objects, &before.objects);
        let applied = now.iter().filter(|(identity, it)| before.get(identity) != Some(it));
        let removed = before.iter().filter(|(identity, _)| !now.contains_key(identity));
        let applied = applied.map(|(_, it)| Change::Applied(it.clone()));
        applied.chain(removed.map(|(_, it)| Change::Removed(it.clone()))).collect()
    }
}
