//! What podwire does under its own name, for people and installers.

mod chain;
mod install;
mod leases;
mod output;
mod validate;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;

use allocator::Allocator;
use output::{complain, say};
pub use validate::check_configuration;

use crate::plugin;

const USAGE: &str = "\
podwire: CNI plugins in one program, told apart by the name it is called under

Usage:
  podwire install [--bin-dir DIR] [--link | --copy] [--only PLUGIN,...]
        put the plugins into DIR (/opt/cni/bin): links to one copy of this
        program, or a copy for each; what is replaced is saved; with --only
        no others than these
  podwire uninstall [--bin-dir DIR]
        take them out again and restore what was there
  podwire chain --into FILE [--watch] [--bin-dir DIR]
        add podwire-policy to the list of networks that somebody else owns
        (flannel, k3s), last and once; with --watch again whenever the owner
        has written it; not where DIR (/opt/cni/bin) lacks the plugin
  podwire unchain --from FILE | --from-all DIR
        take it out again; of every list in DIR (/etc/cni/net.d)
  podwire validate FILE...
        check network configurations and lists: every error with its place,
        unknown keys as warnings; exits 1 if there are errors
  podwire ipam list [--data-dir DIR]
        host-local networks and how many addresses each has leased
  podwire ipam show NETWORK [--data-dir DIR] [--conf FILE]
        leases of one network; with FILE also how many addresses are free
  podwire --version
  podwire --help
";

/// The command line is wrong.
const EXIT_USAGE: u8 = 2;
/// Where SELinux keeps a file's label.
const SELINUX_LABEL: &str = "security.selinux";

/// A command line that cannot be understood; the text says why.
#[derive(Debug, PartialEq, Eq)]
struct UsageError(String);

/// What to do.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Install { bin_dir: PathBuf, method: install::Method, plugins: Vec<&'static str> },
    Uninstall { bin_dir: PathBuf },
    Chain { file: PathBuf, bin_dir: PathBuf, watch: bool },
    Unchain { file: PathBuf },
    UnchainAll { folder: PathBuf },
    Validate { files: Vec<PathBuf> },
    IpamList { data_dir: PathBuf },
    IpamShow { network: String, data_dir: PathBuf, conf: Option<PathBuf> },
    Version,
    Help,
}

/// Runs the command that the program was started with.
pub(crate) fn run(allocator: &Allocator) -> ExitCode {
    let result = match parse(&std::env::args_os().skip(1).collect::<Vec<_>>()) {
        Err(UsageError(problem)) => {
            complain(&format!("{problem}\n\n{USAGE}"));
            return ExitCode::from(EXIT_USAGE);
        }
        Ok(Command::Install { bin_dir, method, plugins }) => {
            install::install(&bin_dir, method, &plugins)
        }
        Ok(Command::Uninstall { bin_dir }) => install::uninstall(&bin_dir),
        Ok(Command::Chain { file, bin_dir, watch: false }) => chain::chain(&file, &bin_dir),
        Ok(Command::Chain { file, bin_dir, watch: true }) => {
            allocator.use_system();
            chain::watch(&file, &bin_dir)
        }
        Ok(Command::Unchain { file }) => chain::unchain(&file),
        Ok(Command::UnchainAll { folder }) => chain::unchain_all(&folder),
        Ok(Command::Validate { files }) => return validate::validate(&files),
        Ok(Command::IpamList { data_dir }) => leases::list(&data_dir),
        Ok(Command::IpamShow { network, data_dir, conf }) => {
            leases::show(&network, &data_dir, conf.as_deref())
        }
        Ok(Command::Version) => say(&format!("podwire {}\n", env!("CARGO_PKG_VERSION"))),
        Ok(Command::Help) => say(USAGE),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&cni::ErrorObject::from_error(0, &error).msg);
            ExitCode::FAILURE
        }
    }
}

fn parse(words: &[OsString]) -> Result<Command, UsageError> {
    let mut words: Vec<&OsStr> = words.iter().map(OsString::as_os_str).collect();
    if words.is_empty() {
        return Err(UsageError("what to do is missing".into()));
    }
    let verb = words.remove(0).to_string_lossy();
    if verb == "help" || is_help(&verb) || words.iter().any(|word| is_help(&word.to_string_lossy()))
    {
        return Ok(Command::Help);
    }
    let bin_dir = |words: &mut Vec<&OsStr>| take_option(words, "--bin-dir", "/opt/cni/bin");
    let command = match verb.as_ref() {
        "--version" | "-V" | "version" => Command::Version,
        "install" => parse_install(bin_dir(&mut words)?, &mut words)?,
        "uninstall" => Command::Uninstall { bin_dir: bin_dir(&mut words)? },
        "chain" => Command::Chain {
            file: take_file(&mut words, "--into")?,
            bin_dir: bin_dir(&mut words)?,
            watch: take_flag(&mut words, "--watch"),
        },
        "unchain" => parse_unchain(&mut words)?,
        "validate" => parse_validate(&mut words)?,
        "ipam" => parse_ipam(&mut words)?,
        other => return Err(UsageError(format!("unknown command {other:?}"))),
    };
    match words.first() {
        None => Ok(command),
        Some(word) => Err(UsageError(format!("{verb}: unexpected {word:?}"))),
    }
}

fn is_help(word: &str) -> bool {
    matches!(word, "--help" | "-h")
}

fn parse_install(bin_dir: PathBuf, words: &mut Vec<&OsStr>) -> Result<Command, UsageError> {
    let copy = take_flag(words, "--copy");
    if take_flag(words, "--link") && copy {
        return Err(UsageError("--link and --copy exclude each other".into()));
    }
    let method = if copy { install::Method::Copy } else { install::Method::Link };
    let only = take_option(words, "--only", "")?;
    let plugins = match only.to_string_lossy().as_ref() {
        "" => plugin::ALL.map(|plugin| plugin.name()).into(),
        only => only.split(',').map(known_plugin).collect::<Result<_, _>>()?,
    };
    Ok(Command::Install { bin_dir, method, plugins })
}

fn known_plugin(name: &str) -> Result<&'static str, UsageError> {
    let plugin = plugin::by_name(name).map(|plugin| plugin.name());
    let problem = || format!("podwire has no plugin {name:?}: it has {}", plugin::names());
    plugin.ok_or_else(|| UsageError(problem()))
}

fn parse_unchain(words: &mut Vec<&OsStr>) -> Result<Command, UsageError> {
    let folder = take_option(words, "--from-all", "")?;
    if folder.as_os_str().is_empty() {
        return Ok(Command::Unchain { file: take_file(words, "--from")? });
    }
    Ok(Command::UnchainAll { folder })
}

fn parse_validate(words: &mut Vec<&OsStr>) -> Result<Command, UsageError> {
    let files = std::mem::take(words);
    if let Some(option) = files.iter().find(|word| word.as_bytes().starts_with(b"--")) {
        return Err(UsageError(format!("unknown option {option:?}")));
    }
    if files.is_empty() {
        return Err(UsageError("validate: which files?".into()));
    }
    Ok(Command::Validate { files: files.iter().map(PathBuf::from).collect() })
}

fn parse_ipam(words: &mut Vec<&OsStr>) -> Result<Command, UsageError> {
    let default = ipam::listing::default_data_dir().display().to_string();
    let data_dir = take_option(words, "--data-dir", &default)?;
    let conf = take_option(words, "--conf", "")?;
    let conf = (!conf.as_os_str().is_empty()).then_some(conf);
    match words.as_slice() {
        [verb] if *verb == "list" && conf.is_none() => {
            words.clear();
            Ok(Command::IpamList { data_dir })
        }
        [verb, network] if *verb == "show" => {
            // What is not UTF-8 is no network's name, and is refused as such.
            let network = network.to_string_lossy().into_owned();
            words.clear();
            Ok(Command::IpamShow { network, data_dir, conf })
        }
        _ => Err(UsageError("ipam: expected list, or show NETWORK".into())),
    }
}

/// Takes `name VALUE` or `name=VALUE` out of the words.
fn take_option(words: &mut Vec<&OsStr>, name: &str, default: &str) -> Result<PathBuf, UsageError> {
    let joined = format!("{name}=");
    let is_joined = |word: &&OsStr| word.as_bytes().starts_with(joined.as_bytes());
    let value = if let Some(at) = words.iter().position(is_joined) {
        words.remove(at).as_bytes().get(joined.len()..).map(OsStr::from_bytes)
    } else if let Some(at) = words.iter().position(|word| *word == name) {
        words.remove(at);
        (at < words.len()).then(|| words.remove(at))
    } else {
        return Ok(default.into());
    };
    // An empty one is a shell's variable that was not set: it must not mean this folder.
    match value.filter(|value| !value.is_empty()) {
        Some(value) => Ok(value.into()),
        None => Err(UsageError(format!("{name} needs a value"))),
    }
}

/// Takes the file out of the words that an option must name.
fn take_file(words: &mut Vec<&OsStr>, name: &str) -> Result<PathBuf, UsageError> {
    let file = take_option(words, name, "")?;
    if file.as_os_str().is_empty() {
        Err(UsageError(format!("{name} FILE is missing")))
    } else {
        Ok(file)
    }
}

fn take_flag(words: &mut Vec<&OsStr>, name: &str) -> bool {
    let at = words.iter().position(|word| *word == name);
    at.map(|at| words.remove(at)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, UsageError> {
        parse(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn options_stand_anywhere_and_have_defaults() {
        let all = || plugin::ALL.map(|plugin| plugin.name()).to_vec();
        let install = |bin_dir: &str, method| Command::Install {
            bin_dir: bin_dir.into(),
            method,
            plugins: all(),
        };
        assert_eq!(parsed("install"), Ok(install("/opt/cni/bin", install::Method::Link)));
        assert_eq!(parsed("install --copy --bin-dir /x"), Ok(install("/x", install::Method::Copy)));
        assert_eq!(parsed("install --bin-dir=/x --link"), Ok(install("/x", install::Method::Link)));
        let show = Command::IpamShow {
            network: "net".into(),
            data_dir: "/d".into(),
            conf: Some("f".into()),
        };
        assert_eq!(parsed("ipam show --data-dir /d net --conf f"), Ok(show));
        let chain = |bin_dir: &str, watch| Command::Chain {
            file: "f".into(),
            bin_dir: bin_dir.into(),
            watch,
        };
        assert_eq!(parsed("chain --into f"), Ok(chain("/opt/cni/bin", false)));
        assert_eq!(parsed("chain --bin-dir /x --watch --into=f"), Ok(chain("/x", true)));
        assert_eq!(parsed("unchain --from f"), Ok(Command::Unchain { file: "f".into() }));
        let folder = "d".into();
        assert_eq!(parsed("unchain --from-all d"), Ok(Command::UnchainAll { folder }));
        let Ok(Command::Install { plugins, .. }) = parsed("install --only podwire-policy,ptp")
        else {
            panic!("not understood")
        };
        assert_eq!(plugins, ["podwire-policy", "ptp"]);
    }

    #[test]
    fn help_is_given_wherever_it_is_asked_for() {
        for verb in [
            "",
            "install",
            "uninstall",
            "chain",
            "unchain",
            "validate",
            "ipam",
            "ipam list",
            "ipam show n",
        ] {
            for word in ["--help", "-h"] {
                assert_eq!(parsed(&format!("{verb} {word}")), Ok(Command::Help), "{verb}");
            }
        }
        assert_eq!(parsed("help"), Ok(Command::Help));
    }

    #[test]
    fn paths_need_not_be_utf_8() {
        let odd = OsStr::from_bytes(b"/\xff").to_owned();
        let joined = OsStr::from_bytes(b"--bin-dir=/\xff").to_owned();
        let files = Command::Validate { files: vec![odd.clone().into()] };
        assert_eq!(parse(&["validate".into(), odd.clone()]), Ok(files));
        let uninstall = || Ok(Command::Uninstall { bin_dir: odd.clone().into() });
        assert_eq!(parse(&["uninstall".into(), "--bin-dir".into(), odd.clone()]), uninstall());
        assert_eq!(parse(&["uninstall".into(), joined]), uninstall());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for line in [
            "",
            "instal",
            "install x",
            "install --link --copy",
            "install --bin-dir",
            "install --bin-dir=",
            "install --only",
            "install --only podwire",
            "install --only ptp,",
            "uninstall --copy",
            "chain",
            "chain f",
            "chain --into",
            "chain --into f g",
            "unchain --into f",
            "unchain --from f --watch",
            "unchain --from f --from-all d",
            "validate",
            "validate --strict a",
            "ipam",
            "ipam show",
            "ipam list x",
            "ipam list --conf f",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
