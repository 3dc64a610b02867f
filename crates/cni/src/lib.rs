//! The Container Network Interface protocol, versions 0.1.0 to 1.1.0, seen from the plugin's side.
//!
//! A runtime starts a plugin with `CNI_*` environment variables and a network configuration on
//! stdin, and reads one JSON document from its stdout. This crate reads the former
//! ([`Call`], [`NetConf`]), prints the latter ([`AddResult`], [`ErrorObject`]) and hands a part of
//! the work to an IPAM plugin ([`delegate`]). Everything but [`delegate`] and [`serve`] is pure.

pub mod args;
mod call;
mod conf;
mod convert;
pub mod decode;
pub mod delegate;
mod duplicates;
mod error;
mod result;
pub mod serve;
mod version;

pub use call::{Call, Command, Environment, container_id_problem, ifname_problem, name_is_valid};
pub use conf::{Attachment, NetConf};
pub use duplicates::duplicates;
pub use error::{Error, ErrorObject, code};
pub use result::{AddResult, Dns, Interface, IpConfig, Route, parse_address, parse_cidr};
pub use version::Version;
