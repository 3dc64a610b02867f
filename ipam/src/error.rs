//! What goes wrong in address management, and the protocol's code for it.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cni::code;

/// What can go wrong in host-local and static.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration, `CNI_ARGS` or the previous result is wrong.
    #[error(transparent)]
    Protocol(#[from] cni::Error),
    /// A file or directory of the store cannot be used.
    #[error("cannot {action} {}{}", path.display(), hint(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The network's lock is held by another call.
    #[error(
        "lock {} is still held by another process after {}.{:03} s (does a host-local call hang? `fuser -v` on the file names it)",
        path.display(), waited.as_secs(), waited.subsec_millis()
    )]
    LockTimeout {
        /// The lock file.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
    /// Every address of a range set is taken.
    #[error(
        "failed to allocate for range {index}: no IP addresses available in range set: {set} (all {size} are leased; a DEL or GC frees some)"
    )]
    Exhausted {
        /// Index of the range set, runtime ranges and the single range counted first.
        index: usize,
        /// Its ranges.
        set: String,
        /// How many addresses it can lease.
        size: u128,
    },
    /// The attachment has an address of this range set already.
    #[error(
        "failed to allocate for range {index}: {address} has been allocated to {container_id}, duplicate allocation is not allowed (was there an ADD without its DEL?)"
    )]
    Duplicate {
        /// Index of the range set.
        index: usize,
        /// The address it has.
        address: IpAddr,
        /// The container.
        container_id: String,
    },
    /// The requested address is a gateway's.
    #[error("failed to allocate for range {index}: requested ip {address} is subnet's gateway")]
    RequestedGateway {
        /// Index of the range set.
        index: usize,
        /// The address.
        address: IpAddr,
    },
    /// The requested address is excluded by the configuration.
    #[error(
        "failed to allocate for range {index}: requested IP address {address} is excluded by {exclusion} in ipam.exclude"
    )]
    RequestedExcluded {
        /// Index of the range set.
        index: usize,
        /// The address.
        address: IpAddr,
        /// The entry of the list.
        exclusion: String,
    },
    /// The requested address is leased to somebody else.
    #[error(
        "failed to allocate for range {index}: requested IP address {address} is not available in range set {set} ({holder})"
    )]
    RequestedTaken {
        /// Index of the range set.
        index: usize,
        /// The address.
        address: IpAddr,
        /// The set's ranges.
        set: String,
        /// Who has it.
        holder: String,
    },
    /// Requested addresses that are in no range set, or of which there are too many.
    #[error(
        "failed to allocate all requested IPs: {} (each must be in a range set of its own)",
        .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    )]
    RequestedLeftOver(Vec<IpAddr>),
    /// CHECK: the attachment has no lease.
    #[error(
        "host-local: Failed to find address added by container {container_id} (interface {ifname}) in {}",
        directory.display()
    )]
    NoLease {
        /// The container.
        container_id: String,
        /// Its interface.
        ifname: String,
        /// The network's directory.
        directory: PathBuf,
    },
    /// CHECK: the previous result has another gateway than the configuration.
    #[error(
        "static: Failed to match addr {address} on interface {ifname}: its gateway is {found}, configured is {wanted}"
    )]
    StaticGateway {
        /// The address.
        address: IpAddr,
        /// The interface.
        ifname: String,
        /// The gateway of the previous result.
        found: String,
        /// The gateway of the configuration.
        wanted: IpAddr,
    },
    /// STATUS: no ADD can keep a file.
    #[error("cannot keep files in {}: {problem}", path.display())]
    Unusable {
        /// The directory that would be used, or the nearest one that exists.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// A name that no network can have was given to look for.
    #[error("{0:?} is not a network's name")]
    NetworkName(String),
    /// There is nothing stored for a network.
    #[error("there are no leases of network {network:?}: {} does not exist", path.display())]
    NoNetwork {
        /// The network.
        network: String,
        /// Where its leases would be.
        path: PathBuf,
    },
    /// Several things went wrong, each after the others were tried.
    #[error("{}", .0.iter().map(with_sources).collect::<Vec<_>>().join("; "))]
    Several(Vec<Self>),
}

impl Error {
    /// The protocol's code for this error.
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::Protocol(error) => error.code(),
            Self::Io { .. } => code::IO_FAILURE,
            // Waiting helps: the lock's holder ends, a pod goes.
            Self::LockTimeout { .. } | Self::Exhausted { .. } | Self::RequestedTaken { .. } => {
                code::TRY_AGAIN_LATER
            }
            // The attachment exists, until its own DEL.
            Self::Duplicate { .. } => code::CONFLICT,
            Self::RequestedGateway { .. }
            | Self::RequestedExcluded { .. }
            | Self::RequestedLeftOver(_)
            | Self::NetworkName(_)
            | Self::NoNetwork { .. } => code::INVALID_CONFIG,
            Self::NoLease { .. } | Self::StaticGateway { .. } => code::CHANGED,
            Self::Unusable { .. } => code::PLUGIN_NOT_AVAILABLE,
            Self::Several(errors) => errors.first().map_or(code::INTERNAL, Self::code),
        }
    }

    /// Of a lock that could not be taken.
    pub(crate) fn lock(path: &Path) -> impl FnOnce(flock::Error) -> Self {
        move |error| match error {
            flock::Error::Timeout(waited) => Self::LockTimeout { path: path.to_owned(), waited },
            flock::Error::Io(source) => Self::io("lock", path)(source),
        }
    }

    /// An [`Error::Io`], for `map_err`.
    pub(crate) fn io<P: Into<PathBuf>, E: Into<io::Error>>(
        action: &'static str,
        path: P,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source: source.into() }
    }
}

impl From<Error> for cni::ErrorObject {
    fn from(error: Error) -> Self {
        match error {
            Error::Protocol(error) => error.into(),
            other => Self::from_error(other.code(), &other),
        }
    }
}

fn with_sources(error: &Error) -> String {
    cni::ErrorObject::from_error(0, error).msg
}

/// The likely cause that the system's own text does not tell.
pub(crate) fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            " (the file system is full, or has no inodes left)"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            " (mounted read-only; the kernel does that itself after disk errors)"
        }
        io::ErrorKind::PermissionDenied => " (not root, or a security module forbids it)",
        io::ErrorKind::NotADirectory => " (a file stands where a directory should be)",
        io::ErrorKind::WouldBlock | io::ErrorKind::NotSeekable => {
            " (a pipe or a device stands where a file should be)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_name_object_attempt_and_cause() {
        let error: Error = Error::io("write", "/x/10.0.0.1")(io::Error::from_raw_os_error(28));
        let object = cni::ErrorObject::from(error);
        assert_eq!(object.code, 5);
        assert_eq!(
            object.msg,
            "cannot write /x/10.0.0.1 (the file system is full, or has no inodes left): No space left on device (os error 28)"
        );
        let error =
            Error::LockTimeout { path: "/x/lock".into(), waited: Duration::from_millis(1500) };
        assert_eq!(error.code(), 11);
        assert!(
            error
                .to_string()
                .starts_with("lock /x/lock is still held by another process after 1.500 s")
        );
    }

    #[test]
    fn several_errors_are_told_with_their_causes() {
        let io =
            |name: &str| -> Error { Error::io("remove", name)(io::Error::from_raw_os_error(5)) };
        let error = Error::Several(vec![io("/a"), io("/b")]);
        assert_eq!(error.code(), 5);
        let text = cni::ErrorObject::from(error).msg;
        assert_eq!(
            text,
            "cannot remove /a: Input/output error (os error 5); cannot remove /b: Input/output error (os error 5)"
        );
    }
}
