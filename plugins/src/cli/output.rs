//! Words to the person at the terminal.

use std::io::{self, Write};

use crate::error::Error;

/// Prints to stdout. A reader that closed the pipe has read enough.
pub(super) fn say(text: &str) -> Result<(), Error> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(source) if source.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::File { what: "print".into(), path: "stdout".into(), source })
        }
        _ => Ok(()),
    }
}

/// Prints to stderr.
pub(super) fn complain(text: &str) {
    // Nobody is left to tell when stderr is closed.
    let _ = writeln!(io::stderr(), "podwire: {text}");
}
