//! Keeps the kernel as the configuration says.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use netlink::Event;
use netlink::nftables::Generation;
use runner::Runner;

use super::iptables::own_chain;
use super::{Config, Error, Options, ReadConfig, chain, nftables};
use crate::dataplane::{Kind, Programs};
use crate::iptables::Family;

/// No ConfigMap is larger (`MaxSecretSize` of the API server).
const LARGEST_FILE: u64 = 1 << 20;
/// Comparing after changes by others: not more often than this, however often they write.
const LEAST_PAUSE: Duration = Duration::from_millis(500);
/// So long after a failure it is tried again, unless the configuration says sooner.
const RETRY: Duration = Duration::from_secs(5);

/// Keeps what masquerades, of both families, as a configuration file says.
#[derive(Debug)]
pub struct Agent<R> {
    file: PathBuf,
    options: Options,
    kind: Kind,
    programs: Programs<R>,
    /// The last good one; none until there was one.
    config: Option<Config>,
    /// The text that was read last; `None` inside: there was no file.
    seen: Option<Option<Vec<u8>>>,
    /// Why the file could not be read last time, as it was told.
    unreadable: Option<io::ErrorKind>,
    /// When the kernel was compared last.
    compared: Option<Instant>,
    /// When it is compared again.
    next: Option<Instant>,
}

/// What one [`Agent::reconcile`] did.
#[derive(Debug, Default)]
pub struct Report {
    /// The configuration was read anew, because it is new or changed, or could not be. In that case
    /// the last good one holds; where there was none, the kernel stays as it is.
    pub reload: Option<Result<ReadConfig, Error>>,
    /// The kernel was compared with the configuration; whether rules had to be written.
    pub kernel: Option<Result<bool, Error>>,
}

impl<R: Runner> Agent<R> {
    /// An agent for a file, which need not be there: then defaults hold.
    pub fn new(file: &Path, options: Options, kind: Kind, programs: Programs<R>) -> Self {
        Self {
            file: file.to_owned(),
            options,
            kind,
            programs,
            config: None,
            seen: None,
            unreadable: None,
            compared: None,
            next: None,
        }
    }

    /// Reads the file, and compares the kernel with it when it changed, or at the latest after each
    /// `resyncInterval`. Blocks for as long as the programs take, at most a minute each.
    pub fn reconcile(&mut self, now: Instant) -> Report {
        let reload = self.reload();
        if matches!(reload, Some(Ok(_))) {
            self.next = None;
        }
        if self.next.is_some_and(|next| now < next) {
            return Report { reload, kernel: None };
        }
        let Some(config) = self.config.clone() else { return Report { reload, kernel: None } };
        let kernel = self.apply(&config);
        let wait = match kernel {
            Ok(_) => config.resync_interval,
            Err(_) => config.resync_interval.min(RETRY),
        };
        self.compared = Some(now);
        self.next = now.checked_add(wait);
        Report { reload, kernel: Some(kernel) }
    }

    /// Whether what is told of changes in nf_tables is worth hearing: by iptables, others change the tables that the rules
    /// are in all the time, and comparing takes programs.
    pub const fn hears(&self) -> bool {
        matches!(self.kind, Kind::Nftables)
    }

    /// Takes in what was told of changes in nf_tables: where somebody, perhaps the agent itself, changed its table, or may
    /// have, the next [`Self::reconcile`] from [`Self::due`] on compares.
    pub fn hear(&mut self, events: &[Event<Generation>]) {
        let concerns = |it: &Event<Generation>| match it {
            Event::Heard(it) => it.tables.is_empty() || it.tables.contains(nftables::TABLE.name),
            Event::Missed => true,
        };
        if self.hears() && events.iter().any(concerns) {
            let soon = self.compared.map(|it| it + LEAST_PAUSE);
            self.next = self.next.zip(soon).map(|(next, soon)| next.min(soon));
        }
    }

    /// When the kernel is compared next, if the configuration does not change; `None`: at once, or when there is one.
    pub const fn due(&self) -> Option<Instant> {
        self.next
    }

    fn apply(&mut self, config: &Config) -> Result<bool, Error> {
        let Self { options, programs, .. } = self;
        if self.kind == Kind::Nftables {
            return Ok(nftables::install(config, options)?);
        }
        let place = own_chain();
        let [four, six] = Family::ALL.map(|family| {
            if !family.is_ipv4() && !options.ipv6 {
                return place.remove(programs, family);
            }
            place.install(programs, family, &chain(config, options, family))
        });
        Ok(four? | six?)
    }

    fn reload(&mut self) -> Option<Result<ReadConfig, Error>> {
        let content = match read(&self.file) {
            Ok(content) => content,
            Err(source) => {
                // Told once, not at each look.
                let is_news = self.unreadable.replace(source.kind()) != Some(source.kind());
                self.seen = None;
                return is_news.then(|| Err(Error::Read { file: self.file.clone(), source }));
            }
        };
        self.unreadable = None;
        if self.seen.as_ref() == Some(&content) {
            return None;
        }
        let result = self.compile(content.as_deref().unwrap_or_default());
        self.seen = Some(content);
        if let Ok(read) = &result {
            self.config = Some(read.config.clone());
        }
        Some(result)
    }

    fn compile(&self, content: &[u8]) -> Result<ReadConfig, Error> {
        if u64::try_from(content.len()).is_ok_and(|length| length > LARGEST_FILE) {
            return Err(Error::TooLarge { file: self.file.clone(), limit: LARGEST_FILE });
        }
        Config::read(&self.file, &String::from_utf8_lossy(content), &self.options)
    }
}

/// The file's content, one byte more than the largest at most; `None` when there is no file.
fn read(file: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut content = Vec::new();
    file.take(LARGEST_FILE + 1).read_to_end(&mut content)?;
    Ok(Some(content))
}

#[cfg(test)]
mod tests;
