//! The call: environment variables and stdin, checked in the order that runtimes can observe.

use std::path::PathBuf;

use crate::{Error, NetConf};

/// What the runtime wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Give the container its attachment.
    Add,
    /// Take it away.
    Del,
    /// Tell whether it still is as ADD left it.
    Check,
    /// Remove what belongs to no valid attachment.
    Gc,
    /// Tell whether an ADD could succeed.
    Status,
    /// Tell the versions spoken.
    Version,
}

impl Command {
    /// The verb as it is spelt in `CNI_COMMAND`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Add, Self::Del, Self::Check, Self::Gc, Self::Status, Self::Version]
            .into_iter()
            .find(|command| command.as_str() == text)
    }

    const fn is_about_an_attachment(self) -> bool {
        matches!(self, Self::Add | Self::Del | Self::Check)
    }

    const fn needs_netns(self) -> bool {
        matches!(self, Self::Add | Self::Check)
    }

    const fn needs_path(self) -> bool {
        !matches!(self, Self::Version)
    }
}

/// The `CNI_*` variables, checked but for what needs the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// `CNI_COMMAND`; what is no verb is kept, because it is only refused after stdin is read.
    pub command: Result<Command, String>,
    /// `CNI_CONTAINERID`; empty for the verbs that are about no attachment.
    pub container_id: String,
    /// `CNI_NETNS`; `None` when empty.
    pub netns: Option<PathBuf>,
    /// `CNI_IFNAME`; empty for the verbs that are about no attachment.
    pub ifname: String,
    /// `CNI_ARGS` as it came.
    pub args: String,
    /// `CNI_PATH` as it came.
    pub path: String,
    /// `CNI_NETNS_OVERRIDE`: the container may share the plugin's own namespace.
    pub netns_override: bool,
}

/// How the environment ends the call before it begins.
#[derive(Debug)]
pub enum Stop {
    /// `CNI_COMMAND` is not set: a person called; say what this program is.
    NotCalledByRuntime,
    /// The environment is wrong.
    Wrong(Error),
}

impl Environment {
    /// Reads the variables through `get`.
    ///
    /// A value that is present is checked before the missing ones are told, and all missing ones
    /// are told together (reference behaviour).
    ///
    /// # Errors
    /// [`Stop`].
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, Stop> {
        let value = |name: &str| get(name).unwrap_or_default();
        let word = value("CNI_COMMAND");
        let command = Command::parse(&word).ok_or_else(|| word.clone());
        let needs = |test: fn(Command) -> bool| command.as_ref().is_ok_and(|c| test(*c));
        let mut missing = Vec::new();

        let container_id = value("CNI_CONTAINERID");
        if needs(Command::is_about_an_attachment) {
            if container_id.is_empty() {
                missing.push("CNI_CONTAINERID");
            } else if container_id_problem(&container_id).is_some() {
                return Err(Stop::Wrong(Error::ContainerId(container_id)));
            }
        }
        let netns = value("CNI_NETNS");
        if needs(Command::needs_netns) && netns.is_empty() {
            missing.push("CNI_NETNS");
        }
        let ifname = value("CNI_IFNAME");
        if needs(Command::is_about_an_attachment) {
            if ifname.is_empty() {
                missing.push("CNI_IFNAME");
            } else if let Some(problem) = ifname_problem(&ifname) {
                return Err(Stop::Wrong(Error::Ifname { problem, ifname }));
            }
        }
        let path = value("CNI_PATH");
        if needs(Command::needs_path) && path.is_empty() {
            missing.push("CNI_PATH");
        }
        if word.is_empty() {
            return Err(Stop::NotCalledByRuntime);
        }
        if !missing.is_empty() {
            return Err(Stop::Wrong(Error::MissingEnvironment(missing)));
        }
        let override_word = value("CNI_NETNS_OVERRIDE");
        Ok(Self {
            command,
            container_id,
            netns: (!netns.is_empty()).then(|| netns.into()),
            ifname,
            args: value("CNI_ARGS"),
            path,
            netns_override: override_word == "1" || override_word.eq_ignore_ascii_case("true"),
        })
    }
}

/// One call of a plugin: what the verbs get.
#[derive(Debug, Clone)]
pub struct Call {
    /// The verb.
    pub command: Command,
    /// `CNI_CONTAINERID`; empty for GC and STATUS.
    pub container_id: String,
    /// `CNI_NETNS`; `None` when empty.
    pub netns: Option<PathBuf>,
    /// `CNI_IFNAME`; empty for GC and STATUS.
    pub ifname: String,
    /// `CNI_ARGS` as it came.
    pub args: String,
    /// `CNI_PATH` as it came: directories joined by `:`.
    pub path: String,
    /// stdin as it came: what a delegate gets.
    pub stdin: Vec<u8>,
    /// stdin, decoded.
    pub conf: NetConf,
}

/// Whether `text` is a container id or a network name: a letter or digit, then letters, digits,
/// `_`, `.` and `-`.
#[must_use]
pub fn name_is_valid(text: &str) -> bool {
    text.bytes().enumerate().all(|(index, byte)| {
        byte.is_ascii_alphanumeric() || (index > 0 && matches!(byte, b'_' | b'.' | b'-'))
    }) && !text.is_empty()
}

/// Why `container_id` cannot be one.
#[must_use]
pub fn container_id_problem(container_id: &str) -> Option<&'static str> {
    (!name_is_valid(container_id)).then_some("invalid characters in containerID")
}

/// Why `ifname` cannot be the name of an interface (kernel: `dev_valid_name`).
#[must_use]
pub fn ifname_problem(ifname: &str) -> Option<&'static str> {
    if ifname.is_empty() {
        return Some("interface name is empty");
    }
    if ifname.len() > 15 {
        return Some("interface name is too long");
    }
    if ifname == "." || ifname == ".." {
        return Some("interface name is . or ..");
    }
    if ifname.contains(['%', '\0']) {
        // The kernel would number `eth%d`, and end a name at NUL.
        return Some("interface name contains % or NUL");
    }
    ifname
        .contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
        .then_some("interface name contains / or : or whitespace characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Environment, Stop> {
        Environment::read(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn error(variables: &[(&str, &str)]) -> Error {
        match read(variables) {
            Err(Stop::Wrong(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn all_missing_variables_are_told_together() {
        assert_eq!(
            error(&[("CNI_COMMAND", "ADD")]).to_string(),
            "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing"
        );
        assert_eq!(
            error(&[("CNI_COMMAND", "GC")]).to_string(),
            "required env variables [CNI_PATH] missing"
        );
    }

    #[test]
    fn a_wrong_value_wins_over_missing_ones() {
        let wrong = error(&[("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "-x")]);
        assert!(matches!(wrong, Error::ContainerId(_)));
        let wrong = error(&[("CNI_COMMAND", "DEL"), ("CNI_IFNAME", "sixteen-bytes-ab")]);
        assert!(matches!(wrong, Error::Ifname { .. }));
    }

    #[test]
    fn values_are_checked_only_where_they_are_needed() {
        let environment = read(&[
            ("CNI_COMMAND", "STATUS"),
            ("CNI_CONTAINERID", "-x"),
            ("CNI_PATH", "/bin"),
            ("CNI_NETNS_OVERRIDE", "TRUE"),
        ])
        .unwrap();
        assert_eq!(environment.command, Ok(Command::Status));
        assert!(environment.netns_override);
        assert_eq!(read(&[("CNI_COMMAND", "FOO")]).unwrap().command, Err("FOO".into()));
    }

    #[test]
    fn without_a_command_a_person_called() {
        assert!(matches!(read(&[]), Err(Stop::NotCalledByRuntime)));
    }

    #[test]
    fn interface_names_are_what_the_kernel_takes() {
        assert_eq!(ifname_problem("eth0.100"), None);
        for wrong in
            ["", ".", "..", "a/b", "a:b", "a b", "a\u{2003}b", "eth%d", "a\0b", "sixteen-bytes-ab"]
        {
            assert!(ifname_problem(wrong).is_some(), "{wrong:?}");
        }
    }
}
