//! Text without allocation.

/// Longer than any text of the floor.
const ROOM: usize = 1536;

/// A text of bounded length. What does not fit is cut: the kernel then refuses the path.
pub(crate) struct Text {
    bytes: [u8; ROOM],
    length: usize,
}

impl Text {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; ROOM], length: 0 }
    }

    pub(crate) fn of(parts: &[&str]) -> Self {
        let mut text = Self::new();
        for part in parts {
            text.push(part);
        }
        text
    }

    pub(crate) fn push(&mut self, part: &str) {
        if let Some(room) = self.bytes.get_mut(self.length..self.length + part.len()) {
            room.copy_from_slice(part.as_bytes());
            self.length += part.len();
        }
    }

    pub(crate) fn push_decimal(&mut self, number: u32) {
        if number >= 10 {
            self.push_decimal(number / 10);
        }
        self.push_digit(number % 10);
    }

    /// As `%x` does: without leading zeros.
    pub(crate) fn push_hex(&mut self, number: u32) {
        if number >= 16 {
            self.push_hex(number / 16);
        }
        self.push_digit(number % 16);
    }

    fn push_digit(&mut self, digit: u32) {
        if let Some(digit) = char::from_digit(digit, 16) {
            self.push(digit.encode_utf8(&mut [0; 4]));
        }
    }

    pub(crate) fn push_mac(&mut self, mac: [u8; 6]) {
        for (index, byte) in mac.into_iter().enumerate() {
            if index > 0 {
                self.push(":");
            }
            self.push_digit(u32::from(byte >> 4));
            self.push_digit(u32::from(byte & 15));
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        self.bytes.get(..self.length).and_then(|bytes| str::from_utf8(bytes).ok()).unwrap_or("")
    }
}
