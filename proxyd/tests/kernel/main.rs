//! Services in the kernel, in namespaces that end with each test. Needs root and nft.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests fail by panicking")]

mod adoption;
mod affinity;
mod live;
mod new_chains;
mod random;
mod scene;
mod tables;
