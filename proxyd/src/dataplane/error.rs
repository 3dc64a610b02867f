//! Why services cannot be as they should.

use crate::nftables::Exhausted;

/// Why the kernel cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel has no nf_tables.
    #[error("the kernel has no nf_tables (is the module nf_tables missing?)")]
    NoNftables,
    /// The kernel refused, or did not answer.
    #[error("cannot write services")]
    Kernel(#[from] netlink::Error),
    /// There are more pools than numbers.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
}
