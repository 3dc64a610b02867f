//! Spans of time as Go writes them.

use std::time::Duration;

/// Nanoseconds in each unit; `µs` is written with either of two letters.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads numbers with units, such as `1h30m` or `1.5s`, or `0` (Go: `time.ParseDuration`). Negative spans make no sense
/// here: `None`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanoseconds = 0_u64;
    while !rest.is_empty() {
        let end = rest.find(|it: char| !it.is_ascii_digit() && it != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let end = after.find(|it: char| it.is_ascii_digit() || it == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
        nanoseconds = nanoseconds.checked_add(scaled(number, *unit)?)?;
        rest = after;
    }
    Some(Duration::from_nanos(nanoseconds))
}

/// `number`, with an optional fraction, of units.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    let (mut nanoseconds, mut digit_is_worth) = (whole.checked_mul(unit)?, unit);
    for digit in fraction.chars() {
        digit_is_worth /= 10;
        nanoseconds = nanoseconds.checked_add(u64::from(digit.to_digit(10)?) * digit_is_worth)?;
    }
    Some(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_are_read() {
        for (text, milliseconds) in [
            ("60s", 60_000),
            ("1m30s", 90_000),
            ("1h0m0s", 3_600_000),
            ("0s", 0),
            ("0", 0),
            ("1.5h", 5_400_000),
            ("+250ms", 250),
            (".5s", 500),
            ("2000000ns", 2),
            ("1000µs", 1),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn other_texts_are_none() {
        for text in ["", "+", "60", "s", "-1s", ".s", "1.2.3s", "1 s", "99999999999h", "1d"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
