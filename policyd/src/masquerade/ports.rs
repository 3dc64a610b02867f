//! Which source ports masqueraded connections get.

use std::fmt;
use std::str::FromStr;

use ruleset::iptables::PortRange;

use super::Error;

/// Below NodePorts, which are 30000 to 32767 unless the API server was told otherwise, and above
/// them. A connection from a NodePort's number would take the answers of that Service
/// (kubernetes/kubernetes#139276).
const OUTSIDE_OF_NODE_PORTS: [PortRange; 2] =
    [PortRange { first: 1024, last: 29_999 }, PortRange { first: 32_768, last: 65_535 }];

/// Ranges of ports; none: whatever the kernel chooses. Written as `1024-29999,32768-65535`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRanges(Vec<PortRange>);

impl PortRanges {
    /// Each range, with the share of the ports of itself and all after it that are its own: of
    /// a million. The last one's is all.
    pub(super) fn shares(&self) -> impl Iterator<Item = (PortRange, u32)> {
        let size = |range: &PortRange| u64::from(range.last - range.first) + 1;
        self.0.iter().enumerate().map(move |(index, range)| {
            let rest: u64 = self.0.iter().skip(index).map(size).sum();
            let share = size(range) * 1_000_000 / rest.max(1);
            (*range, u32::try_from(share).unwrap_or(1_000_000))
        })
    }
}

impl Default for PortRanges {
    fn default() -> Self {
        Self(OUTSIDE_OF_NODE_PORTS.into())
    }
}

impl FromStr for PortRanges {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let ranges = text.split(',').map(range).collect::<Option<_>>();
        ranges.map(Self).ok_or_else(|| Error::Ports { text: text.to_owned() })
    }
}

fn range(text: &str) -> Option<PortRange> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (0 < first && first <= last).then_some(PortRange { first, last })
}

impl fmt::Display for PortRanges {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, PortRange { first, last }) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(formatter, "{comma}{first}-{last}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_written() {
        for (text, again) in [
            ("1024-29999,32768-65535", "1024-29999,32768-65535"),
            ("5000", "5000-5000"),
            (" 1 - 2 , 3", "1-2,3-3"),
            ("", ""),
        ] {
            assert_eq!(text.parse::<PortRanges>().unwrap().to_string(), again, "{text}");
        }
        assert_eq!(PortRanges::default().to_string(), "1024-29999,32768-65535");
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in [",", "1-", "0-5", "5-4", "1-65536", "a", "1-2-3", "1,"] {
            let error = text.parse::<PortRanges>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn every_port_is_as_likely_as_any_other() {
        let shares: Vec<_> =
            "1-100,101-400,401-1000".parse::<PortRanges>().unwrap().shares().collect();
        let share = |(_, share): &(PortRange, u32)| *share;
        assert_eq!(shares.iter().map(share).collect::<Vec<_>>(), [100_000, 333_333, 1_000_000]);
    }
}
