//! What a program is asked once, by people at a terminal: they keep no log.

use std::error::Error;
use std::fmt::{self, Display};
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use serde::Serialize;

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

/// The exit code where an answer is not what the kernel holds.
const HOLDS_SOMETHING_ELSE: u8 = 3;

/// What the objects say to a question, and, where that was asked, what the kernel of the node holds.
#[derive(Debug, Serialize)]
pub struct Explained<R, L> {
    /// What the objects say.
    #[serde(flatten)]
    pub report: R,
    /// What the kernel holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<L>,
}

impl<R: Display + Serialize, L: Display + Serialize> Explained<R, L> {
    /// Prints it as text, or as JSON, and tells the exit code, which depends on whether the kernel `holds` what the objects say.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn print(
        &self,
        is_json: bool,
        holds: impl FnOnce(&L) -> bool,
    ) -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
        let text =
            if is_json { serde_json::to_string_pretty(self)? + "\n" } else { self.to_string() };
        print(&text)?;
        let holds = self.live.as_ref().is_none_or(holds);
        Ok(if holds { ExitCode::SUCCESS } else { ExitCode::from(HOLDS_SOMETHING_ELSE) })
    }
}

impl<R: Display, L: Display> Display for Explained<R, L> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.report)?;
        self.live.iter().try_for_each(|live| write!(formatter, "{live}"))
    }
}
