//! What the plugins do alike with rules of nf_tables.

use std::thread::sleep;
use std::time::{Duration, Instant};

use netlink::nftables::{Change, HeldRule};
use nix::errno::Errno;
use ruleset::nft::Table;

use crate::error::Error;

/// Rules that were listed may be gone when they are to be deleted, where others are at work.
const ATTEMPTS: usize = 10;
/// A change that must be of what was looked at is tried for so long,
const PATIENCE: Duration = Duration::from_secs(10);
/// and between its attempts there is the first of these, which doubles up to the second.
const PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(100)];

/// Tries again when something went away between the look and the change.
pub(crate) fn attempt(mut change: impl FnMut() -> Result<(), netlink::Error>) -> Result<(), Error> {
    for _ in 1..ATTEMPTS {
        match change() {
            Err(error) if error.errno() == Some(Errno::ENOENT) => {}
            result => return Ok(result?),
        }
    }
    Ok(change()?)
}

/// Tries again, for a while, when others have changed any rules between the look and the change of a table: some programs
/// write to nf_tables all the time.
pub(crate) fn persist(
    table: Table<'_>,
    change: impl FnMut() -> Result<(), netlink::Error>,
) -> Result<(), Error> {
    persist_for(PATIENCE, table, change)
}

fn persist_for(
    patience: Duration,
    table: Table<'_>,
    mut change: impl FnMut() -> Result<(), netlink::Error>,
) -> Result<(), Error> {
    let (started, [mut pause, longest]) = (Instant::now(), PAUSES);
    loop {
        match change() {
            Err(error) if error.errno() == Some(Errno::ERESTART) => {}
            done => return Ok(done?),
        }
        if started.elapsed() >= patience {
            return Err(Error::Overtaken { table: table.to_string(), patience });
        }
        sleep(pause);
        pause = longest.min(pause.saturating_mul(2));
    }
}

/// Takes these rules out of their chain.
pub(crate) fn deletions<'a>(
    chain: &'a str,
    rules: impl Iterator<Item = &'a HeldRule>,
) -> impl Iterator<Item = Change<'a>> {
    rules.map(move |rule| Change::DeleteRule(chain, rule.handle))
}

/// An error that says what needs nf_tables where there is none.
pub(crate) fn missing(what: &str) -> Error {
    Error::NotAvailable(format!("{what} needs nf_tables, which this kernel does not have"))
}

#[cfg(test)]
mod tests {
    use cni::ErrorObject;
    use ruleset::nft::Family;

    use super::*;

    const TABLE: Table<'_> = Table { family: Family::Inet, name: "mine" };

    fn overtaken() -> netlink::Error {
        let (what, explanation) = ("change".to_owned(), String::new());
        netlink::Error::Refused { what, explanation, errno: Errno::ERESTART }
    }

    #[test]
    fn a_change_that_was_overtaken_is_made_once_nobody_does() {
        let mut left = 40;
        let change = || {
            left -= 1;
            if left > 0 { Err(overtaken()) } else { Ok(()) }
        };
        assert!(persist_for(Duration::MAX, TABLE, change).is_ok());
        assert_eq!(left, 0);
    }

    #[test]
    fn who_changes_rules_all_the_time_is_told_of() {
        let mut attempts = 0;
        let change = || {
            attempts += 1;
            Err(overtaken())
        };
        let error = persist_for(Duration::ZERO, TABLE, change).unwrap_err();
        let object = ErrorObject::from(error);
        assert_eq!((attempts, object.code), (1, 11));
        assert!(
            object.msg.contains("table inet mine") && object.msg.contains("by others"),
            "{object:?}"
        );
    }
}
