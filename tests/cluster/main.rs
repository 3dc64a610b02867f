//! policyd's source of objects against a real API server, on a new etcd and on one that is too old
//! for streamed lists.

mod accounts;
mod away;
mod deployed;
mod events;
mod explained;
mod images;
mod manifests;
mod networks;
mod objects;
mod proxied;
mod ranges;
mod remains;
mod role;
mod source;
mod spread;
mod synced;
mod told;
mod uninstalled;
