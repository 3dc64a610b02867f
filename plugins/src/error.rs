//! What goes wrong in the plugins, and the code that each error gets.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use cni::decode::{Problem, Problems, Severity};
use cni::{ErrorObject, code};

use crate::firewall::BusError;

/// Why a plugin failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Protocol(#[from] cni::Error),
    #[error(transparent)]
    Ipam(#[from] ipam::Error),
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    #[error(transparent)]
    Netns(#[from] netns::Error),
    #[error("called as {name:?}, but podwire has no such plugin: it has {known}")]
    UnknownName { name: String, known: String },
    #[error("cannot use {what}: it is not supported yet")]
    Unsupported { what: String },
    #[error("IPAM plugin {0:?} returned no IP address")]
    NoAddress(String),
    #[error("invalid network configuration: {0}")]
    Config(String),
    #[error("cannot use the result of IPAM plugin: {0}")]
    IpamResult(String),
    #[error("cannot write {value:?} to /proc/sys/{key} ({})", sysctl_hint(source))]
    Sysctl { key: String, value: String, source: io::Error },
    #[error("cannot {what} {}", path.display())]
    File { what: String, path: PathBuf, source: io::Error },
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Changed(String),
    #[error("{what} failed")]
    Program { what: String, source: runner::Error },
    #[error("{what} failed ({status}){}{stderr}", if stderr.is_empty() { "" } else { ": " })]
    ProgramFailed { what: String, status: String, stderr: String },
    #[error(transparent)]
    Lock(runner::Error),
    #[error("{what} failed: another program holds the iptables lock: {stderr}")]
    IptablesBusy { what: String, stderr: String },
    #[error("cannot change table {table} in nf_tables: the rules keep being changed by others, for {} s between each look and the change (does a program write to nf_tables all the time?)", patience.as_secs())]
    Overtaken { table: String, patience: Duration },
    #[error("cannot {what}")]
    Bus { what: String, source: BusError },
    #[error(transparent)]
    Attachment(#[from] attachment::Error),
    #[error("the pod's policy is not in force: {0}")]
    NoPolicy(String),
    #[error("cannot serve ADD: {0}")]
    NotAvailable(String),
    #[error("teardown left {} problem(s): {}", .0.len(), join(.0))]
    Teardown(Vec<Error>),
}

fn sysctl_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "does this kernel have the parameter, and the container the interface?"
        }
        io::ErrorKind::InvalidInput => "does the parameter take this value?",
        _ => "is /proc/sys read-only?",
    }
}

fn join(errors: &[Error]) -> String {
    let texts: Vec<String> =
        errors.iter().map(|error| ErrorObject::from_error(0, error).msg).collect();
    texts.join("; ")
}

impl Error {
    fn code(&self) -> u32 {
        match self {
            Self::Protocol(error) => error.code(),
            Self::Ipam(error) => error.code(),
            // Others do not change things for ever.
            Self::Netlink(netlink::Error::Interrupted { .. }) => code::TRY_AGAIN_LATER,
            Self::Netlink(_) | Self::Sysctl { .. } => code::KERNEL_REFUSED,
            Self::Netns(_) => code::INVALID_NETNS,
            Self::UnknownName { .. } => code::INVALID_ENVIRONMENT,
            Self::Unsupported { .. } => code::UNSUPPORTED_FIELD,
            Self::Config(_) | Self::IpamResult(_) | Self::NoAddress(_) => code::INVALID_CONFIG,
            Self::File { .. } => code::IO_FAILURE,
            Self::Conflict(_) => code::CONFLICT,
            Self::Changed(_) => code::CHANGED,
            Self::Program { .. } | Self::ProgramFailed { .. } => code::PROGRAM_FAILED,
            Self::Lock(runner::Error::LockTimeout { .. })
            | Self::IptablesBusy { .. }
            | Self::Overtaken { .. }
            | Self::NoPolicy(_) => code::TRY_AGAIN_LATER,
            Self::Lock(_) | Self::Attachment(_) => code::IO_FAILURE,
            Self::Bus { source: BusError::Timeout, .. } => code::TRY_AGAIN_LATER,
            Self::Bus { source: BusError::Refused { .. }, .. } => code::PROGRAM_FAILED,
            Self::Bus { .. } => code::IO_FAILURE,
            Self::NotAvailable(_) => code::PLUGIN_NOT_AVAILABLE,
            Self::Teardown(errors) => errors.first().map_or(code::INTERNAL, Self::code),
        }
    }

    /// An error if a plugin's configuration has a key that asks for what cannot be done yet.
    pub(crate) fn unless_supported(plugin: &str, key: Option<&str>) -> Result<(), Self> {
        match key {
            Some(key) => Err(Self::Unsupported { what: format!("{plugin} option {key}") }),
            None => Ok(()),
        }
    }

    /// One error for several; none for none.
    pub(crate) fn of_teardown(errors: Vec<Self>) -> Result<(), Self> {
        let each = |error| match error {
            Self::Teardown(errors) => errors,
            error => vec![error],
        };
        let mut errors: Vec<Self> = errors.into_iter().flat_map(each).collect();
        match errors.len() {
            0 => Ok(()),
            1 => errors.pop().map_or(Ok(()), Err),
            _ => Err(Self::Teardown(errors)),
        }
    }
}

impl From<Error> for ErrorObject {
    fn from(error: Error) -> Self {
        match error {
            Error::Protocol(error) => error.into(),
            other => Self::from_error(other.code(), &other),
        }
    }
}

/// Tells the runtime's log what did not stop the call.
pub(crate) fn warn(text: &str) {
    // Nobody is left to tell when stderr is closed.
    let _ = io::Write::write_all(&mut io::stderr(), format!("podwire: {text}\n").as_bytes());
}

/// Tells what is wrong with a configuration that is used all the same.
pub(crate) fn warn_of(problems: Problems) {
    let is_wrong = |problem: &Problem| problem.severity != Severity::Unknown;
    for problem in problems.into_vec().into_iter().filter(is_wrong) {
        warn(&format!("ignoring a problem of the configuration: {problem}"));
    }
}
