//! Where objects are from.

pub mod api_server;
pub mod folder;
