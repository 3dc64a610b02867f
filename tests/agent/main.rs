//! policyd as it runs: over a folder of manifests, in a node whose pods podwire's plugins wired.

mod attachments;
mod closed;
mod counters;
mod crowd;
mod denied;
mod disturbed;
mod firewalled;
mod first_packets;
mod flows;
mod folder;
mod forged;
mod former_owner;
mod frames;
mod guards;
mod health;
mod interfaces;
mod kills;
mod live;
mod many;
mod masquerading;
mod node;
mod order;
mod preflight;
mod rewritten;
mod stream;
