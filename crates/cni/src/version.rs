//! Protocol versions, their families, and which verb exists since which of them.

use std::fmt;

/// A protocol version that podwire speaks.
///
/// Ordered by age, so `version >= Version::V0_4_0` asks "does CHECK exist?".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 0.1.0, also what a configuration without `cniVersion` means.
    V0_1_0,
    /// 0.2.0: the VERSION verb.
    V0_2_0,
    /// 0.3.0: results with interfaces and several addresses; chained plugins.
    V0_3_0,
    /// 0.3.1.
    V0_3_1,
    /// 0.4.0: the CHECK verb; DEL carries `prevResult`.
    V0_4_0,
    /// 1.0.0: addresses without the `version` key.
    V1_0_0,
    /// 1.1.0: the GC and STATUS verbs; route and interface attributes.
    V1_1_0,
}

/// The shape that a result has on the wire; versions of one family read each other's results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// `ip4` and `ip6`: 0.1.0 and 0.2.0.
    Ip4Ip6,
    /// `ips` with a `version` key each: 0.3.0 to 0.4.0.
    VersionedIps,
    /// `ips` as they are today: 1.0.0 and 1.1.0.
    Ips,
}

impl Version {
    /// Every version, oldest first.
    pub const ALL: [Self; 7] = [
        Self::V0_1_0,
        Self::V0_2_0,
        Self::V0_3_0,
        Self::V0_3_1,
        Self::V0_4_0,
        Self::V1_0_0,
        Self::V1_1_0,
    ];

    /// The newest version.
    pub const LATEST: Self = Self::V1_1_0;

    /// The version as it is written in `cniVersion`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// The version written as `text`, if podwire speaks it; an empty text means 0.1.0.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::V0_1_0);
        }
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    pub(crate) const fn family(self) -> Family {
        match self {
            Self::V0_1_0 | Self::V0_2_0 => Family::Ip4Ip6,
            Self::V0_3_0 | Self::V0_3_1 | Self::V0_4_0 => Family::VersionedIps,
            Self::V1_0_0 | Self::V1_1_0 => Family::Ips,
        }
    }
}

impl Family {
    /// The members, as an error message lists them.
    pub(crate) fn members(self) -> String {
        let names: Vec<&str> = Version::ALL
            .into_iter()
            .filter(|version| version.family() == self)
            .map(Version::as_str)
            .collect();
        names.join(" ")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// `major.minor.patch` of any version text, known to podwire or not, for the gates that compare by
/// age (CHECK, GC, STATUS). `None` for what is not a version.
#[must_use]
pub(crate) fn numbers(text: &str) -> Option<(u64, u64, u64)> {
    if text.is_empty() {
        return Some((0, 1, 0));
    }
    let mut parts = text.split('.');
    let mut next = || parts.next().map_or(Some(0), |part| part.parse().ok());
    let numbers = (next()?, next()?, next()?);
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_version_is_the_oldest() {
        assert_eq!(Version::parse(""), Some(Version::V0_1_0));
        assert_eq!(Version::parse("9.9.9"), None);
        for version in Version::ALL {
            assert_eq!(Version::parse(version.as_str()), Some(version));
        }
    }

    #[test]
    fn numbers_reads_any_version() {
        assert_eq!(numbers("9.9.9"), Some((9, 9, 9)));
        assert_eq!(numbers("1.0"), Some((1, 0, 0)));
        assert_eq!(numbers("one"), None);
        assert_eq!(numbers("1.0.0.0"), None);
    }

    #[test]
    fn families_are_named_whole() {
        assert_eq!(Family::VersionedIps.members(), "0.3.0 0.3.1 0.4.0");
    }
}
