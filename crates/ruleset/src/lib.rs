//! Rules of iptables and nf_tables, and ipsets, as values.
//!
//! Of iptables, what the kernel shall hold is made of [`iptables::Chain`]s and [`ipset::Set`]s; what it does
//! hold is known by hashes, which rules carry in their comments (a bare jump needs none), so that no
//! rule is ever read back. From the two comes the smallest change, as text for
//! `iptables-restore --noflush` and `ipset restore`. All of it is pure.

pub mod ipset;
pub mod iptables;
mod name;
pub mod networks;
pub mod nft;
pub mod steps;

pub use name::{Label, long_hash, short_hash};
