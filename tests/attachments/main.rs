//! The CNI plugin podwire-policy behind ptp or bridge, with policyd's own server, index and
//! dataplane behind the socket: present, away, slow and dying.

mod agent;
mod away;
mod closed;
mod garbage;
mod present;
mod site;
mod status;
