//! The daemon as a process: its name for the node, its log, and its end.

use std::str::FromStr;
use std::{fs, io};

use tokio::signal::unix::{SignalKind, signal};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: an object a line.
    Json,
}

impl LogFormat {
    /// Their names on a command line.
    pub const NAMES: [&str; 2] = ["text", "json"];
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("no format of log lines: {}", Self::NAMES.join(", "))),
        }
    }
}

/// Begins to write the log, to the standard error. Once in a process.
pub fn start_log(format: LogFormat) {
    let log = tracing_subscriber::fmt().with_writer(io::stderr).with_target(false);
    match format {
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().init(),
    }
}

/// Waits for a signal to end. The first process of a container has to ask for it: else it gets none.
///
/// # Errors
/// When the kernel refuses.
pub fn told_to_end() -> io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// The node's name: the one that is given, or else its host name.
///
/// # Errors
/// When that cannot be read.
pub fn node_name(given: Option<&str>) -> io::Result<String> {
    if let Some(name) = given {
        return Ok(name.to_owned());
    }
    let unread = |error: io::Error| {
        let text = format!("cannot read the host name: {error} (give --node-name)");
        io::Error::new(error.kind(), text)
    };
    let name = fs::read_to_string("/proc/sys/kernel/hostname").map_err(unread)?;
    Ok(name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_its_name() {
        let formats = LogFormat::NAMES.map(str::parse::<LogFormat>);
        assert_eq!(formats, [Ok(LogFormat::Text), Ok(LogFormat::Json)]);
        assert_eq!("xml".parse::<LogFormat>().unwrap_err(), "no format of log lines: text, json");
    }

    #[test]
    fn a_name_that_is_given_is_the_nodes() {
        assert_eq!(node_name(Some("node-1")).unwrap(), "node-1");
        let own = node_name(None).unwrap();
        assert!(!own.is_empty() && own.trim() == own, "{own:?}");
    }
}
