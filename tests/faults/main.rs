//! Bad input and bad luck: nothing is lost, nothing is left, and the error is clear.

mod chained;
mod check;
mod common;
mod crowd;
mod firewall;
mod holders;
mod input;
mod kills;
mod leases;
mod locks;
mod masquerade;
mod parallel;
mod portmap;
mod portmap_index;
mod restored;
mod rollback;
mod routes;
mod rules;
mod shared_chains;
mod siblings;
mod unheard;
mod vanished;
