//! Address management for pods.
//!
//! [`host_local`] leases addresses from ranges and keeps the leases in files, in the layout of the
//! reference plugin of that name and usable together with it; [`static_addresses`] gives out what
//! the configuration names; [`listing`] shows people what is leased.
//!
//! The pure core is in `range`, `allocator`, `lease` and `index::format`; effects are in `store`.

mod allocator;
mod error;
mod files;
pub mod host_local;
mod index;
mod lease;
pub mod listing;
mod range;
pub mod static_addresses;
mod store;
#[cfg(test)]
mod testing;

pub use error::Error;
