//! NetworkPolicy: who may talk to whom, decided from Kubernetes objects.
//!
//! [`model`] is the world as policy needs it, with all defaulting and validation done. Everything
//! here is pure: no I/O, no clock.

pub mod model;

pub use model::World;
