//! What the plugins do alike with rules of nf_tables.

use netlink::nftables::{Change, HeldRule};
use nix::errno::Errno;

use crate::error::Error;

/// Rules that were listed may be gone when they are to be deleted, where others are at work.
const ATTEMPTS: usize = 10;

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
