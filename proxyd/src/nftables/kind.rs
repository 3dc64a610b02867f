//! What happens to connections, as a number and as a chain.

use ruleset::nft::Verdict;

/// What happens to connections to a place. Each is a chain that all such places share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The client is told that nobody is there.
    Reject,
    /// Nothing is answered.
    Drop,
    /// It depends on where they come from, see [`Way::Divided`](crate::plan::Way::Divided).
    Divided,
    /// Only some may connect: those whom the chain of the pool with this number lets pass.
    Allow(u32),
    /// They go to an endpoint of the pool.
    Pick(Pick),
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pick {
    /// Among so many.
    pub count: u32,
    /// Whether the pool is that in the map `local-pools`.
    pub is_local: bool,
    /// Whether a client comes to the same one for a while.
    pub is_sticky: bool,
    /// Who is hidden.
    pub hidden: Hidden,
}

/// Which clients are hidden behind the node's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hidden {
    /// None.
    Nobody,
    /// Those that are not of the cluster.
    Outside,
    /// All.
    Everybody,
}

/// By this a number is told from any other priority of a packet: programs may set up to 6 unasked, routers up to 15.
const TAG: u32 = 0x7000_0000;
const TAG_BITS: u32 = 0xff00_0000;
const VARIANT_SHIFT: u32 = 20;
const COUNT_BITS: u32 = (1 << VARIANT_SHIFT) - 1;
/// The first of those of [`Kind::Pick`], with which three choices are told.
const PICKS: u32 = 4;

impl Kind {
    /// Its number. Counts and numbers of pools have to be less than 2^20.
    #[must_use]
    pub const fn number(self) -> u32 {
        let (variant, count) = match self {
            Self::Reject => (0, 0),
            Self::Drop => (1, 0),
            Self::Divided => (2, 0),
            Self::Allow(pool) => (3, pool),
            Self::Pick(pick) => (pick.variant(), pick.count),
        };
        TAG | variant << VARIANT_SHIFT | count & COUNT_BITS
    }

    /// That of a number; `None`: it is none of these.
    #[must_use]
    pub fn of_number(number: u32) -> Option<Self> {
        if number & TAG_BITS != TAG {
            return None;
        }
        let count = number & COUNT_BITS;
        Some(match number >> VARIANT_SHIFT & 0xf {
            0 => Self::Reject,
            1 => Self::Drop,
            2 => Self::Divided,
            3 => Self::Allow(count),
            variant => {
                let choices = variant - PICKS;
                let hidden = match choices >> 2 {
                    0 => Hidden::Nobody,
                    1 => Hidden::Outside,
                    _ => Hidden::Everybody,
                };
                let (is_sticky, is_local) = (choices & 1 != 0, choices & 2 != 0);
                Self::Pick(Pick { count, is_local, is_sticky, hidden })
            }
        })
    }

    /// Where the map `chains` leads for it.
    #[must_use]
    pub fn verdict(self) -> Verdict {
        match self.chain() {
            Some(chain) => Verdict::Goto(chain),
            None => Verdict::Drop,
        }
    }

    /// The name of its chain; [`Kind::Drop`] needs none.
    #[must_use]
    pub fn chain(self) -> Option<String> {
        Some(match self {
            Self::Drop => return None,
            Self::Reject => "rejecting".to_owned(),
            Self::Divided => "divided".to_owned(),
            Self::Allow(pool) => format!("allow-{pool}"),
            Self::Pick(pick) => pick.chain(),
        })
    }

    /// The kinds whose chains its chain leads to.
    #[must_use]
    pub fn leads_to(self) -> Option<Self> {
        match self {
            Self::Pick(pick) if pick.hidden != Hidden::Nobody => Some(Self::Pick(pick.plain())),
            _ => None,
        }
    }
}

impl Pick {
    const fn variant(self) -> u32 {
        let hidden = match self.hidden {
            Hidden::Nobody => 0,
            Hidden::Outside => 1,
            Hidden::Everybody => 2,
        };
        PICKS + self.is_sticky as u32 + 2 * self.is_local as u32 + 4 * hidden
    }

    /// The same without hiding anybody.
    #[must_use]
    pub const fn plain(self) -> Self {
        Self { hidden: Hidden::Nobody, ..self }
    }

    /// The name of its chain.
    #[must_use]
    pub fn chain(self) -> String {
        let hidden = match self.hidden {
            Hidden::Nobody => "",
            Hidden::Outside => "outside-",
            Hidden::Everybody => "masquerade-",
        };
        let word = if self.is_sticky { "stick" } else { "pick" };
        let local = if self.is_local { "-local" } else { "" };
        format!("{hidden}{word}{local}-{}", self.count)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_lead_back_to_their_kinds() {
        let mut kinds = vec![Kind::Reject, Kind::Drop, Kind::Divided, Kind::Allow(0xf_ffff)];
        for hidden in [Hidden::Nobody, Hidden::Outside, Hidden::Everybody] {
            for (is_local, is_sticky) in
                [(false, false), (false, true), (true, false), (true, true)]
            {
                kinds.push(Kind::Pick(Pick { count: 3, is_local, is_sticky, hidden }));
            }
        }
        for kind in &kinds {
            assert_eq!(Kind::of_number(kind.number()), Some(*kind));
        }
        let chains: BTreeSet<_> = kinds.iter().map(|it| it.chain()).collect();
        assert_eq!(chains.len(), kinds.len());
        for other in [0, 6, 15, 0x0001_0002, 0x7100_0000] {
            assert_eq!(Kind::of_number(other), None);
        }
    }
}
