//! From a call to exactly one document on stdout.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize as _;
use serde_json::{Map, Value, json};

use crate::call::Stop;
use crate::{AddResult, Call, Command, Environment, Error, ErrorObject, NetConf, Version, code};
use crate::{name_is_valid, version};

/// No configuration is larger; more on stdin is refused instead of filling memory.
const STDIN_LIMIT: u64 = 16 << 20;
/// Of documents on stdout.
const INDENT: &str = "    ";

/// A plugin: its names and its verbs.
pub trait Plugin {
    /// The name that it is called under.
    fn name(&self) -> &'static str;

    /// The versions that it speaks, oldest first.
    fn versions(&self) -> &'static [Version] {
        &Version::ALL
    }

    /// ADD.
    ///
    /// # Errors
    /// The error object for the runtime; nothing that the call made is left then.
    fn add(&self, call: &Call) -> Result<AddResult, ErrorObject>;

    /// DEL: removes what is there; what is not there is no error.
    ///
    /// # Errors
    /// The error object for the runtime, when something is left that a later DEL may remove.
    fn del(&self, call: &Call) -> Result<(), ErrorObject>;

    /// CHECK.
    ///
    /// # Errors
    /// What is not as ADD left it.
    fn check(&self, call: &Call) -> Result<(), ErrorObject>;

    /// GC: removes what belongs to none of the valid attachments of this network.
    ///
    /// # Errors
    /// What could not be removed.
    fn gc(&self, call: &Call) -> Result<(), ErrorObject>;

    /// STATUS: whether an ADD could succeed; changes nothing.
    ///
    /// # Errors
    /// Why none can.
    fn status(&self, call: &Call) -> Result<(), ErrorObject>;
}

/// Serves the call that this process was started for.
#[must_use]
pub fn serve(plugin: &dyn Plugin) -> ExitCode {
    answer_panics();
    let environment = refuse_undecodable().and_then(|()| {
        Environment::read(|name| {
            std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
        })
    });
    let mut answered_in = Version::LATEST;
    let answer = match environment {
        Err(Stop::NotCalledByRuntime) => return introduce(plugin),
        Err(Stop::Wrong(error)) => Err(error.into()),
        Ok(environment) => handle(plugin, environment, &mut answered_in),
    };
    match answer {
        Ok(()) => ExitCode::SUCCESS,
        Err(object) => fail(&object, answered_in),
    }
}

/// Whether a runtime started this process.
#[must_use]
pub fn is_called_by_runtime() -> bool {
    std::env::var_os("CNI_COMMAND").is_some_and(|command| !command.is_empty())
}

/// Answers a runtime's call, whatever it is, with an error.
#[must_use]
pub fn refuse(error: &ErrorObject) -> ExitCode {
    fail(error, Version::LATEST)
}

fn fail(error: &ErrorObject, version: Version) -> ExitCode {
    if print(&pretty(&error.to_json(version), INDENT)).is_err() {
        // Nobody is left to tell when stderr is closed, too.
        let _ = io::stderr().write_all(format!("podwire: {error}\n").as_bytes());
    }
    ExitCode::FAILURE
}

/// Refuses variables that are not UTF-8: what they mean would be guessed.
fn refuse_undecodable() -> Result<(), Stop> {
    let is_wrong = |(name, value): &(OsString, OsString)| {
        name.to_str().is_some_and(|name| name.starts_with("CNI_")) && value.to_str().is_none()
    };
    match std::env::vars_os().find(is_wrong) {
        None => Ok(()),
        Some((name, _)) => {
            Err(Stop::Wrong(Error::UndecodableEnvironment(name.to_string_lossy().into_owned())))
        }
    }
}

/// The two lines for a person who calls a plugin by hand.
fn introduce(plugin: &dyn Plugin) -> ExitCode {
    let versions: Vec<&str> = plugin.versions().iter().map(|v| v.as_str()).collect();
    let text = format!(
        "CNI {} plugin v{} (podwire)\nCNI protocol versions supported: {}\n",
        plugin.name(),
        env!("CARGO_PKG_VERSION"),
        versions.join(", ")
    );
    match io::stderr().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn handle(
    plugin: &dyn Plugin,
    environment: Environment,
    answered_in: &mut Version,
) -> Result<(), ErrorObject> {
    if environment.command == Ok(Command::Version) {
        let versions: Vec<&str> = plugin.versions().iter().map(|v| v.as_str()).collect();
        let document =
            json!({"cniVersion": Version::LATEST.as_str(), "supportedVersions": versions});
        return Ok(print(&format!("{document}\n")).map_err(Error::Stdout)?);
    }
    let stdin = read_stdin()?;
    let (name, stated, raw) = decode_conf(&stdin)?;
    if let Some(version) = Version::parse(&stated) {
        *answered_in = version;
    }
    let command = environment.command.map_err(Error::UnknownCommand)?;
    let version = gate(command, &stated, plugin.versions())?;
    refuse_own_netns(environment.netns.as_deref().filter(|_| !environment.netns_override))?;
    let call = Call {
        command,
        container_id: environment.container_id,
        netns: environment.netns,
        ifname: environment.ifname,
        args: environment.args,
        path: environment.path,
        stdin,
        conf: NetConf { version, name, raw },
    };
    answer(plugin, &call)
}

/// Does the work and prints its result. An ADD whose result reaches nobody is undone: a runtime that
/// has gone will not call DEL.
fn answer(plugin: &dyn Plugin, call: &Call) -> Result<(), ErrorObject> {
    let text = dispatch(plugin, call)?;
    let Err(source) = print(&text) else { return Ok(()) };
    let mut error = ErrorObject::from(Error::Stdout(source));
    if call.command == Command::Add
        && let Err(left) = plugin.del(call)
    {
        error.details = format!("undoing the ADD failed, too: {left}");
    }
    Err(error)
}

fn dispatch(plugin: &dyn Plugin, call: &Call) -> Result<String, ErrorObject> {
    match call.command {
        Command::Add => {
            let result = plugin.add(call)?;
            return Ok(pretty(&result.to_json(call.conf.version)?, INDENT));
        }
        Command::Del => plugin.del(call)?,
        Command::Check => plugin.check(call)?,
        Command::Gc => {
            // Even where there is nothing to collect, a caller that forgot the list is told.
            call.conf.valid_attachments()?;
            plugin.gc(call)?;
        }
        Command::Status => plugin.status(call)?,
        Command::Version => {}
    }
    Ok(String::new())
}

fn read_stdin() -> Result<Vec<u8>, Error> {
    let mut stdin = Vec::with_capacity(4096);
    let length = io::stdin().take(STDIN_LIMIT).read_to_end(&mut stdin).map_err(Error::Stdin)?;
    if length as u64 == STDIN_LIMIT {
        return Err(Error::Stdin(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(stdin)
}

/// Decodes a configuration: its name, its version as stated, and all of it.
///
/// # Errors
/// [`Error::Json`], [`Error::Undecodable`], [`Error::MissingName`], [`Error::Name`].
pub fn decode_conf(stdin: &[u8]) -> Result<(String, String, Map<String, Value>), Error> {
    let what = "the network configuration";
    let document: Value =
        serde_json::from_slice(stdin).map_err(|source| Error::Json { what, source })?;
    let Value::Object(raw) = document else {
        let problem = "expected an object".into();
        return Err(Error::Undecodable { path: ".".into(), problem });
    };
    let problems = crate::decode::Problems::default();
    let fields = crate::decode::Fields::root(&raw, &problems);
    let text = |key| fields.string(key).unwrap_or_default().to_owned();
    let (name, stated) = (text("name"), text("cniVersion"));
    drop(fields);
    problems.into_result()?;
    if name.is_empty() {
        return Err(Error::MissingName);
    }
    if !name_is_valid(&name) {
        return Err(Error::Name(name));
    }
    Ok((name, stated, raw))
}

/// The version gates (reference: skel `checkVersionAndCall`).
fn gate(command: Command, stated: &str, supported: &'static [Version]) -> Result<Version, Error> {
    let since = match command {
        Command::Check => Version::V0_4_0,
        Command::Gc | Command::Status => Version::V1_1_0,
        Command::Add | Command::Del | Command::Version => Version::V0_1_0,
    };
    if since > Version::V0_1_0 {
        let asked =
            version::numbers(stated).ok_or_else(|| Error::UnreadableVersion(stated.to_owned()))?;
        if Some(asked) < version::numbers(since.as_str()) {
            return Err(Error::VerbTooNew(command.as_str()));
        }
        if supported.iter().all(|version| version::numbers(version.as_str()) < Some(asked)) {
            return Err(Error::ConfigTooNew(command.as_str()));
        }
    }
    Version::parse(stated)
        .filter(|version| supported.contains(version))
        .ok_or_else(|| Error::IncompatibleVersion { config: stated.to_owned(), supported })
}

/// Refuses a container that is in the plugin's own namespace: whatever were done would be done to
/// the host (a path of a process whose id was reused leads there). A path that cannot be opened is
/// left to the verb.
fn refuse_own_netns(netns: Option<&Path>) -> Result<(), ErrorObject> {
    let identity = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino()));
    let Some(Ok(theirs)) = netns.map(identity) else { return Ok(()) };
    match identity(Path::new("/proc/thread-self/ns/net")) {
        Ok(ours) if ours == theirs => Err(ErrorObject {
            code: code::INVALID_NETNS,
            msg: "plugin's netns and netns from CNI_NETNS should not be the same".into(),
            details: netns.map(|path| path.display().to_string()).unwrap_or_default(),
        }),
        _ => Ok(()),
    }
}

/// A document over several lines, each level indented by `indent`, as Go's `MarshalIndent` has it.
#[must_use]
pub fn pretty(document: &Value, indent: &str) -> String {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    match document.serialize(&mut serializer) {
        Ok(()) => String::from_utf8_lossy(&text).into_owned(),
        // A document of strings and numbers always serializes; this keeps the promise without it.
        Err(_) => document.to_string(),
    }
}

/// Set by the first document, so that there is never a second.
static ANSWERED: AtomicBool = AtomicBool::new(false);

fn print(text: &str) -> io::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    if ANSWERED.swap(true, Ordering::SeqCst) {
        return Err(io::Error::other("there was an answer already"));
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Turns a panic, which is a bug, into an error object: without one the runtime could only tell
/// that the plugin died.
fn answer_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let object = ErrorObject {
            code: code::INTERNAL,
            msg: format!("internal error, please report it: {panic}"),
            details: String::new(),
        };
        let _ = fail(&object, Version::LATEST);
        std::process::exit(1);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_checked_like_the_reference_does() {
        let error = |text: &str| decode_conf(text.as_bytes()).unwrap_err();
        assert_eq!(error("{").code(), 6);
        assert_eq!(error("[]").code(), 6);
        assert_eq!(error(r#"{"name":1}"#).code(), 6);
        assert_eq!(error("{}").code(), 7);
        assert_eq!(error(r#"{"name":"a/b"}"#).code(), 7);
        assert_eq!(decode_conf(br#"{"NAME":"n"}"#).unwrap().0, "n");
    }

    #[test]
    fn verbs_exist_since_their_versions() {
        let gate = |command, stated| gate(command, stated, &Version::ALL);
        assert_eq!(gate(Command::Add, "").unwrap(), Version::V0_1_0);
        assert_eq!(gate(Command::Add, "abc").unwrap_err().code(), 1);
        for (command, stated, expected) in [
            (Command::Check, "0.3.1", "config version does not allow CHECK"),
            (Command::Gc, "1.0.0", "config version does not allow GC"),
            (Command::Status, "9.9.9", "plugin version does not allow STATUS"),
        ] {
            assert_eq!(gate(command, stated).unwrap_err().to_string(), expected);
        }
        assert_eq!(gate(Command::Check, "x.y").unwrap_err().code(), 6);
        assert_eq!(gate(Command::Check, "0.4.0").unwrap(), Version::V0_4_0);
    }

    /// Set for the process that the next test starts.
    const ROLE: &str = "CNI_TEST_PANIC";

    #[test]
    fn plays_the_plugin_that_panics() {
        if std::env::var_os(ROLE).is_some() {
            answer_panics();
            panic!("on purpose");
        }
    }

    #[test]
    fn a_panic_becomes_an_error_object() {
        #[expect(clippy::disallowed_methods, reason = "a process that may exit")]
        let output = std::process::Command::new("/proc/self/exe")
            .args(["--exact", "--nocapture", "serve::tests::plays_the_plugin_that_panics"])
            .env(ROLE, "1")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let stdout = String::from_utf8(output.stdout).unwrap();
        let document: Value = serde_json::from_str(
            stdout.split_once('{').map(|(before, _)| stdout.get(before.len()..).unwrap()).unwrap(),
        )
        .unwrap();
        assert_eq!(document["code"], 999);
        assert!(document["msg"].as_str().unwrap().contains("on purpose"));
    }

    #[test]
    fn our_own_namespace_is_refused() {
        let own = Path::new("/proc/self/task/../../thread-self/ns/net");
        assert_eq!(refuse_own_netns(Some(own)).unwrap_err().code, 8);
        assert!(refuse_own_netns(Some(Path::new("/nowhere"))).is_ok());
        assert!(refuse_own_netns(None).is_ok());
    }
}
