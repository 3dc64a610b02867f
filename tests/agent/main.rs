//! policyd as it runs: over a folder of manifests, in a node whose pods podwire's plugins wired.

mod attachments;
mod counters;
mod denied;
mod flows;
mod folder;
mod interfaces;
mod many;
mod masquerading;
mod node;
mod preflight;
