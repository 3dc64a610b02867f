//! What a lease file is called and what is in it: pure, no I/O.
//!
//! The format is the reference's: the file's name is the address, its content the container id,
//! `\r\n` and the interface's name, without a newline at the end. Files of old plugins hold the
//! container id alone ("bare").

use std::fmt::{self, Write as _};
use std::net::IpAddr;

/// The lock file that all users of a network's directory take.
pub(crate) const LOCK_FILE: &str = "lock";

/// Beginning of the names of the files that remember the last address handed out of a range set.
pub(crate) const LAST_RESERVED_PREFIX: &str = "last_reserved_ip.";

/// The file that remembers the last address handed out of range set `set`.
#[must_use]
pub(crate) fn last_reserved_file(set: usize) -> String {
    format!("{LAST_RESERVED_PREFIX}{set}")
}

/// What a name in a network's directory stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    /// A lease of this address.
    Lease(IpAddr),
    /// The lock, or a range set's last address.
    Bookkeeping,
    /// Nothing of ours.
    Foreign,
}

impl Name {
    /// Reads a file name. Only the canonical text of an address names a lease, because only that
    /// is what either plugin creates: another spelling does not keep the address from being given
    /// out.
    #[must_use]
    pub(crate) fn read(name: &[u8]) -> Self {
        let Ok(text) = std::str::from_utf8(name) else { return Self::Foreign };
        if text == LOCK_FILE || text.starts_with(LAST_RESERVED_PREFIX) {
            return Self::Bookkeeping;
        }
        match text.parse::<IpAddr>() {
            Ok(address) if is_canonical(address, text) => Self::Lease(address),
            _ => Self::Foreign,
        }
    }
}

/// Whether `text` is how `address` is written. Allocates nothing: it runs for every file.
fn is_canonical(address: IpAddr, text: &str) -> bool {
    struct Matcher<'a>(&'a str);
    impl fmt::Write for Matcher<'_> {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            self.0 = self.0.strip_prefix(part).ok_or(fmt::Error)?;
            Ok(())
        }
    }
    let wrapped = matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
    let mut rest = Matcher(text);
    !wrapped && write!(rest, "{address}").is_ok() && rest.0.is_empty()
}

/// Who a lease belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    key: Vec<u8>,
    container_length: usize,
}

impl Owner {
    /// The owner of what `container_id` has on its interface `ifname`.
    #[must_use]
    pub(crate) fn new(container_id: &str, ifname: &str) -> Self {
        let container_id = container_id.trim();
        let key = format!("{container_id}\r\n{ifname}").into_bytes();
        Self { key, container_length: container_id.len() }
    }

    /// The content of the owner's lease files.
    #[must_use]
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    /// The content of the owner's lease files as old plugins wrote them.
    #[must_use]
    pub(crate) fn bare_key(&self) -> &[u8] {
        self.key.get(..self.container_length).unwrap_or_default()
    }
}

/// What a lease file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content<'a> {
    /// An owner, without blanks around it.
    Owned(&'a [u8]),
    /// Nothing, or bytes that no plugin writes: the writer was killed between creating and writing
    /// the file, or the machine lost its power before the content was on the disk.
    Corrupt,
}

impl<'a> Content<'a> {
    /// Reads the content of a lease file.
    #[must_use]
    pub(crate) fn read(bytes: &'a [u8]) -> Self {
        let trimmed = bytes.trim_ascii();
        // Neither a container id nor an interface's name can hold a NUL: both come from environment
        // variables.
        if trimmed.is_empty() || trimmed.contains(&0) {
            Self::Corrupt
        } else {
            Self::Owned(trimmed)
        }
    }

    /// Whether this content is an owner's in the old format, without an interface.
    #[must_use]
    pub(crate) fn is_bare(owned: &[u8]) -> bool {
        !owned.contains(&b'\n')
    }

    /// Container id and interface (absent in the old format) of an owner, for people to read.
    #[must_use]
    pub(crate) fn split(owned: &[u8]) -> (String, Option<String>) {
        let text = String::from_utf8_lossy(owned);
        match text.split_once('\n') {
            Some((container_id, ifname)) => {
                (legible(container_id.trim_end()), Some(legible(ifname.trim())))
            }
            None => (legible(&text), None),
        }
    }
}

/// What somebody wrote into a file or its name, as a terminal can show it: without control
/// characters, and cut where nothing of ours would be as long.
#[must_use]
pub(crate) fn legible(text: &str) -> String {
    const LONGEST: usize = 128;
    let mut shown = String::new();
    for (count, character) in text.chars().enumerate() {
        match character {
            _ if count == LONGEST => {
                shown.push_str("...");
                break;
            }
            '"' | '\'' => shown.push(character),
            other => shown.extend(other.escape_debug()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_canonical_addresses_name_leases() {
        let lease = |text: &str| Name::Lease(text.parse().unwrap());
        for text in ["10.9.0.2", "fd00:9::2", "::1", "::102:304", "1:0:0:2::"] {
            assert_eq!(Name::read(text.as_bytes()), lease(text), "{text}");
        }
        for text in ["lock", "last_reserved_ip.0", "last_reserved_ip.x"] {
            assert_eq!(Name::read(text.as_bytes()), Name::Bookkeeping, "{text}");
        }
        for text in ["FD00::2", "fd00:0::2", "::ffff:10.0.0.1", "10.0.0.1~", "010.0.0.1", "", "."] {
            assert_eq!(Name::read(text.as_bytes()), Name::Foreign, "{text}");
        }
        assert_eq!(Name::read(&[0xff, 0xfe]), Name::Foreign);
    }

    #[test]
    fn owners_are_written_as_the_reference_writes_them() {
        let owner = Owner::new("abc", "eth0");
        assert_eq!(owner.key(), b"abc\r\neth0");
        assert_eq!(owner.bare_key(), b"abc");
        assert_eq!(Content::split(owner.key()), ("abc".into(), Some("eth0".into())));
        assert_eq!(Content::split(owner.bare_key()), ("abc".into(), None));
        assert!(Content::is_bare(owner.bare_key()) && !Content::is_bare(owner.key()));
    }

    #[test]
    fn nothing_is_shown_that_a_terminal_would_obey() {
        let (container_id, ifname) = Content::split(b"a\x1b[2J\tb\r\ne\x07\xff\nth0");
        assert_eq!(container_id, "a\\u{1b}[2J\\tb");
        assert_eq!(ifname.unwrap(), "e\\u{7}\u{fffd}\\nth0");
        assert_eq!(legible("\u{202e}it's \"x\""), "\\u{202e}it's \"x\"");
        assert_eq!(legible(&"x".repeat(128)), "x".repeat(128));
        assert_eq!(legible(&"x".repeat(9999)), format!("{}...", "x".repeat(128)));
    }

    #[test]
    fn what_a_power_cut_leaves_is_corrupt() {
        for bytes in [&b""[..], b" \r\n", b"\0\0\0\0", b"abc\r\n\0\0"] {
            assert_eq!(Content::read(bytes), Content::Corrupt, "{bytes:?}");
        }
        assert_eq!(Content::read(b" abc\r\neth0\n"), Content::Owned(b"abc\r\neth0"));
    }

    proptest! {
        #[test]
        fn every_address_names_its_lease(bits: u128, short: u32) {
            for address in [IpAddr::V6(bits.into()), IpAddr::V4(short.into())] {
                let mapped = address.to_canonical() != address;
                let name = Name::read(address.to_string().as_bytes());
                prop_assert_eq!(name == Name::Lease(address), !mapped);
            }
        }

        #[test]
        fn any_name_and_content_is_read(bytes: Vec<u8>) {
            let _ = Name::read(&bytes);
            if let Content::Owned(owned) = Content::read(&bytes) {
                let _ = Content::split(owned);
            }
        }
    }
}
