//! What a program is asked once, by people at a terminal: they keep no log.

use std::error::Error;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use crate::chain;

/// Writes an answer to the standard output.
///
/// # Errors
/// It cannot be written, though somebody reads.
pub fn print(text: &str) -> io::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Writes what is wrong to the standard error, as it is.
pub fn complain(what: &dyn Display) {
    // Whoever closed it does not want to be told.
    _ = writeln!(io::stderr(), "{what}");
}

/// The exit code of a question. Why there is no answer goes to the standard error.
#[must_use]
pub fn exit_code(answer: Result<ExitCode, Box<dyn Error + Send + Sync>>) -> ExitCode {
    answer.unwrap_or_else(|error| {
        complain(&chain(&*error));
        ExitCode::FAILURE
    })
}
