//! What policyd puts into the kernel does what the objects say: real packets between pods that
//! podwire's own plugins wired, held against the oracle.

mod cluster;
mod smoke;
