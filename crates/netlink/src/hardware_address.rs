//! Ethernet addresses.

use std::fmt;

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct HardwareAddress(pub [u8; 6]);

impl HardwareAddress {
    /// Reads `00:11:22:33:44:55`; `-` and `.` (in groups of four digits) separate as well, as Go's
    /// `net.ParseMAC` has it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits: Vec<u8> = if text.len() == 14 && text.split('.').all(|group| group.len() == 4) {
            text.bytes().filter(|byte| *byte != b'.').collect()
        } else {
            let separator = text.chars().nth(2).filter(|c| matches!(c, ':' | '-'))?;
            let groups: Vec<&str> = text.split(separator).collect();
            if groups.len() != 6 || groups.iter().any(|group| group.len() != 2) {
                return None;
            }
            groups.concat().into_bytes()
        };
        let mut octets = [0; 6];
        for (octet, pair) in octets.iter_mut().zip(digits.chunks(2)) {
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            let [high, low] = pair else { return None };
            *octet = u8::try_from(digit(high)? << 4 | digit(low)?).ok()?;
        }
        (digits.len() == 12).then_some(Self(octets))
    }

    /// Whether it is the address of nothing: a bridge without ports may have it.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self == Self::default()
    }
}

impl fmt::Display for HardwareAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_are_read_as_go_reads_them() {
        let expected = HardwareAddress([0x02, 0, 0x5e, 0x10, 0xab, 1]);
        for text in ["02:00:5e:10:ab:01", "02-00-5E-10-AB-01", "0200.5e10.ab01"] {
            assert_eq!(HardwareAddress::parse(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "02:00:5e:10:ab",
            "02:00:5e:10:ab:1",
            "02:00:5e:10:ab:zz",
            "02-00:5e-10-ab-01",
            "é2:00:5e:10:ab:01",
        ] {
            assert_eq!(HardwareAddress::parse(text), None, "{text}");
        }
        assert_eq!(expected.to_string(), "02:00:5e:10:ab:01");
    }
}
