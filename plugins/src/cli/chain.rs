//! `podwire chain` and `unchain`: podwire-policy in a list that somebody else owns, such as flannel's or
//! k3s'. Only the one entry is added or taken out; every other byte stays.

mod edit;
mod replace;
mod watch;

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cni::serve::Plugin as _;
use nix::fcntl::OFlag;

use super::output::say;
use crate::error::Error;
use crate::policy::Policy;
use edit::Refusal;
use replace::{Outcome, replace};
pub(super) use watch::watch;

/// No list is longer (a ConfigMap's limit, which most come from).
const LONGEST: u64 = 1 << 20;
/// So often the owner may write the file while it is being changed.
const ATTEMPTS: usize = 5;

/// Puts podwire-policy last into the list of a file, if the runtime has the plugin in its folder.
pub(super) fn chain(file: &Path, bin_dir: &Path) -> Result<(), Error> {
    let word = if put_into(file, bin_dir)? { "podwire-policy is chained" } else { "unchanged" };
    say(&format!("{}: {word}\n", file.display()))
}

/// Takes podwire-policy out of the list of a file. Where there is no file, there is nothing to do.
pub(super) fn unchain(file: &Path) -> Result<(), Error> {
    let word = match change(file, edit::unchained) {
        Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => "not there",
        Err(error) => return Err(error),
        Ok(true) => "podwire-policy is taken out",
        Ok(false) => "unchanged",
    };
    say(&format!("{}: {word}\n", file.display()))
}

/// Takes podwire-policy out of every list of a folder. Files that cannot have it are passed over, and
/// one that cannot be changed keeps it out of no other.
pub(super) fn unchain_all(folder: &Path) -> Result<(), Error> {
    let (mut lines, mut errors) = (String::new(), Vec::new());
    for list in lists(folder).map_err(failed("read", folder))? {
        match change(&list, edit::unchained) {
            Ok(true) => {
                lines.push_str(&format!("{}: podwire-policy is taken out\n", list.display()));
            }
            Ok(false) | Err(Error::Config(_)) => {}
            // Its owner removed it meanwhile.
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => errors.push(error),
        }
    }
    say(&lines)?;
    Error::of_teardown(errors)
}

/// Puts it there; whether it was not.
fn put_into(file: &Path, bin_dir: &Path) -> Result<bool, Error> {
    let plugin = bin_dir.join(Policy.name());
    // In a container the folder is elsewhere.
    if bin_dir.is_dir() && !plugin.exists() {
        return Err(Error::Conflict(format!(
            "{}: not chained: a list with podwire-policy keeps every pod from starting where the \
             plugin is missing, and {} is not there (`podwire install` first, or --bin-dir is not \
             the folder where the runtime looks)",
            file.display(),
            plugin.display()
        )));
    }
    change(file, |text| match edit::chained(text)? {
        Some(_) if !is_list(file) => Err(Refusal::Ending),
        after => Ok(after),
    })
}

/// Makes a change of the file's text, should it need one; whether it did.
fn change(
    file: &Path,
    edit: impl Fn(&str) -> Result<Option<String>, Refusal>,
) -> Result<bool, Error> {
    for _ in 0..ATTEMPTS {
        let before = read(file)?;
        let text = std::str::from_utf8(&before).map_err(|_| refused(file, &Refusal::NotJson))?;
        let Some(after) = edit(text).map_err(|refusal| refused(file, &refusal))? else {
            replace::remove_left_over(file);
            return Ok(false);
        };
        match replace(file, &before, &after)? {
            Outcome::Replaced => return Ok(true),
            // The owner's new content is what counts.
            Outcome::Changed => {}
        }
    }
    let text = format!("{} is being written again and again: try later", file.display());
    Err(Error::Conflict(text))
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    let failed = failed("read", file);
    // Opening a pipe would wait for who writes to it, and reading it takes away what is read.
    let opened = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(file);
    let opened = opened.map_err(&failed)?;
    if !opened.metadata().map_err(&failed)?.is_file() {
        return Err(Error::Config(format!("{} is not a regular file", file.display())));
    }
    let mut content = Vec::new();
    opened.take(LONGEST + 1).read_to_end(&mut content).map_err(&failed)?;
    if content.len() as u64 > LONGEST {
        return Err(refused(file, &Refusal::TooLarge(LONGEST)));
    }
    Ok(content)
}

fn failed(what: &str, path: &Path) -> impl Fn(io::Error) -> Error + use<> {
    let (what, path) = (what.to_owned(), path.to_owned());
    move |source| Error::File { what: what.clone(), path: path.clone(), source }
}

fn refused(file: &Path, refusal: &Refusal) -> Error {
    let hint = match refusal {
        Refusal::Meta { network } => meta_hint(file, network.as_deref()),
        _ => String::new(),
    };
    Error::Config(format!("{}: {refusal}{hint}", file.display()))
}

/// The file that has the network which a plugin of plugins calls.
fn meta_hint(file: &Path, network: Option<&str>) -> String {
    let folder = file.parent().unwrap_or(Path::new("."));
    let named = network.and_then(|it| Path::new(it).file_name()).map(|name| folder.join(name));
    match named.filter(|it| it.is_file()).or_else(|| first_list(folder)) {
        Some(list) => format!(": use --into {}", list.display()),
        None => ": use the list of the cluster's default network".to_owned(),
    }
}

/// The first list of a folder that podwire-policy can be put into.
fn first_list(folder: &Path) -> Option<PathBuf> {
    let is_good = |list: &PathBuf| {
        let text = read(list).ok().and_then(|content| String::from_utf8(content).ok());
        text.is_some_and(|text| edit::chained(&text).is_ok())
    };
    lists(folder).ok()?.into_iter().find(is_good)
}

/// Whether runtimes take the file for a list.
fn is_list(file: &Path) -> bool {
    file.extension().is_some_and(|it| it == "conflist")
}

/// The lists of a folder, as the runtime takes them; none where there is no folder.
fn lists(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut lists: Vec<_> = paths.filter(|it| is_list(it) && it.is_file()).collect();
    lists.sort();
    Ok(lists)
}

#[cfg(test)]
mod tests;
