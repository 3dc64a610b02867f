//! Names that the reference plugins make of hashes.

use sha2::{Digest, Sha512};

/// The first bytes of a text's SHA-512, as hexadecimal digits.
pub(crate) fn hex(text: &str, bytes: usize) -> String {
    Sha512::digest(text).iter().take(bytes).map(|byte| format!("{byte:02x}")).collect()
}
