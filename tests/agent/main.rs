//! policyd as it runs: over a folder of manifests, in a node whose pods podwire's plugins wired.

mod attachments;
mod counters;
mod denied;
mod flows;
mod folder;
mod interfaces;
mod masquerading;
mod node;
