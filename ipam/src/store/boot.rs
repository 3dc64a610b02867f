//! Which boot this is, and when it began.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::fcntl::OFlag;
use nix::time::{ClockId, clock_gettime};

use crate::files::open;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The kernel's random id of this boot; `None` when it cannot be read. Clocks cannot stand in for
/// it: a machine without a clock of its own begins every boot at the same time.
#[must_use]
pub(super) fn boot_id() -> Option<[u8; 16]> {
    let mut text = [0; 64];
    let length = open(Path::new(BOOT_ID), OFlag::O_RDONLY, 0).ok()?.read(&mut text).ok()?;
    parse(text.get(..length)?)
}

/// When this boot began, by today's wall clock; `None` when the clocks make no sense.
#[must_use]
pub(super) fn boot_time() -> Option<SystemTime> {
    let up = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?);
    SystemTime::now().checked_sub(up)
}

/// Reads `01234567-89ab-...` and refuses the id of no boot.
fn parse(text: &[u8]) -> Option<[u8; 16]> {
    let mut digits = text.trim_ascii().iter().filter(|byte| **byte != b'-');
    let mut digit = || char::from(*digits.next()?).to_digit(16);
    let mut id = [0; 16];
    for byte in &mut id {
        *byte = u8::try_from(digit()? << 4 | digit()?).ok()?;
    }
    (digit().is_none() && id != [0; 16]).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_parsed_or_refused() {
        let id = parse(b"00112233-4455-6677-8899-aabbccddeeff\n").unwrap();
        assert_eq!(id[..3], [0, 0x11, 0x22]);
        assert_eq!(id[15], 0xff);
        for wrong in [
            &b""[..],
            b"0011",
            b"00000000-0000-0000-0000-000000000000",
            b"xx112233-4455-6677-8899-aabbccddeeff",
            b"00112233-4455-6677-8899-aabbccddeeff0",
        ] {
            assert_eq!(parse(wrong), None);
        }
    }

    #[test]
    fn this_boot_has_an_id_and_began_in_the_past() {
        assert!(boot_id().is_some());
        assert!(boot_time().unwrap() < SystemTime::now());
    }
}
