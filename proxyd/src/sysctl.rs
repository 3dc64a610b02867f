//! The kernel's parameters.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// A number that is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// This one, or a greater one.
    AtLeast(u64),
    /// This one.
    Exactly(u64),
}

/// Why a parameter stays as it is.
#[derive(Debug, thiserror::Error)]
#[error("{} stays as it is", file.display())]
pub struct Unchanged {
    /// Its file.
    pub file: PathBuf,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

impl Wanted {
    pub(crate) const fn number(self) -> u64 {
        match self {
            Self::AtLeast(number) | Self::Exactly(number) => number,
        }
    }

    const fn has(self, number: u64) -> bool {
        match self {
            Self::AtLeast(least) => number >= least,
            Self::Exactly(right) => number == right,
        }
    }
}

/// Has the parameter in a file be right. One that is right is not written: it may be read-only.
///
/// # Errors
/// [`Unchanged`].
pub(crate) fn ensure(file: &Path, wanted: Wanted) -> Result<(), Unchanged> {
    let set = || -> io::Result<()> {
        let before: u64 = fs::read_to_string(file)?.trim().parse().map_err(io::Error::other)?;
        if !wanted.has(before) {
            let now = wanted.number();
            fs::write(file, now.to_string())?;
            tracing::info!(file = %file.display(), before, now, "the kernel's parameter is set");
        }
        Ok(())
    };
    set().map_err(|source| Unchanged { file: file.to_owned(), source })
}
