//! The node's own network: nodes on one wire, with routes to each other's pods.

mod accept;
mod advertised;
mod drift;
mod list;
mod nodes;
mod routes;
