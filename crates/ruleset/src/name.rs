//! Names of things in the kernel, which are shorter than those of the objects they stand for.

use std::fmt;

use sha2::{Digest, Sha256};

/// RFC 4648's base 32 in lower case: nothing that a shell or an iptables rule treats specially.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// 60 bits: with 10,000 things of a kind, two have the same hash once in 20 billion clusters.
pub(crate) const LENGTH: usize = 12;
/// 100 bits: to find two texts with the same takes whoever may choose them some 2^50 tries.
const LONG: usize = 20;

/// Twelve letters and digits for a text: always the same for the same text. For texts of which nobody gains
/// anything by having two with the same.
#[must_use]
pub fn short_hash(text: &str) -> String {
    hash(text, LENGTH)
}

/// Twenty letters and digits for a text, which others may have chosen.
#[must_use]
pub fn long_hash(text: &str) -> String {
    hash(text, LONG)
}

fn hash(text: &str, length: usize) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let bits = digest.iter().take(16).fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
    let letter = |index: usize| {
        let five = usize::try_from(bits >> (123 - 5 * index) & 31).unwrap_or_default();
        ALPHABET.get(five).map_or('a', |byte| char::from(*byte))
    };
    (0..length).map(letter).collect()
}

/// A text for people that goes into a rule's comment: of any origin, so that only characters that
/// mean nothing in the text of a rule are left of it, and not too many.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

impl Label {
    /// The kernel takes 255 bytes of comment (`XT_MAX_COMMENT_LEN`); the rule's hash is among them.
    const LONGEST: usize = 200;

    /// Replaces what has a meaning elsewhere by `?`, and cuts what is too long.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let is_plain = |it: char| it.is_ascii_alphanumeric() || "-_./: ".contains(it);
        Self(
            text.chars()
                .take(Self::LONGEST)
                .map(|it| if is_plain(it) { it } else { '?' })
                .collect(),
        )
    }
}

impl fmt::Display for Label {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_short_plain_and_always_the_same() {
        assert_eq!(short_hash("default/web"), short_hash("default/web"));
        assert_ne!(short_hash("default/web"), short_hash("default/wec"));
        let hash = short_hash("");
        // SHA-256 of nothing begins with e3b0c44298fc1c14: 11100 01110 11000 01100 ...
        assert_eq!(hash, "4oymiquy7qob");
        // It goes on with 149afbf4c8996fb9.
        assert_eq!(long_hash(""), "4oymiquy7qobjgx36tej");
    }

    #[test]
    fn a_label_cannot_say_anything_to_iptables() {
        assert_eq!(Label::new("a/b\" -j ACCEPT\n-A x").to_string(), "a/b? -j ACCEPT?-A x");
        assert_eq!(Label::new(&"x".repeat(400)).to_string().len(), 200);
        assert_eq!(Label::new("päd").to_string(), "p?d");
    }
}
