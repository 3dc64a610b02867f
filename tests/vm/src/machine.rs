//! A virtual machine: how it is started, and how it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runner::{OsRunner, Program, Runner};

use crate::error::{Error, Result};
use crate::plan::SHARE;

/// What is emulated takes ten to twenty times as long. Longer than this no virtual machine may take:
/// each suite has its own, shorter, bound.
const BOUND: Duration = Duration::from_secs(180 * 60);

/// A virtual machine's files.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) folder: PathBuf,
}

/// How a virtual machine went.
#[derive(Debug)]
pub(crate) struct Went {
    /// What came out of the port for results.
    pub(crate) results: String,
    /// What its console showed.
    pub(crate) console: String,
    pub(crate) took: Duration,
    /// Why it did not end by itself, if so.
    pub(crate) trouble: Option<Error>,
}

impl Machine {
    /// An empty folder for one.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn new(folder: PathBuf) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(Error::file("remove the folder", &folder))?;
        }
        fs::create_dir_all(&folder).map_err(Error::file("make the folder", &folder))?;
        Ok(Self { folder })
    }

    pub(crate) fn console(&self) -> PathBuf {
        self.folder.join("console")
    }

    pub(crate) fn results(&self) -> PathBuf {
        self.folder.join("results")
    }

    /// Runs it until it ends. It cannot outlive us.
    ///
    /// # Errors
    /// Its archive cannot be written.
    pub(crate) fn run(&self, kernel: &Path, archive: &[u8]) -> Result<Went> {
        let start = self.folder.join("initramfs");
        fs::write(&start, archive).map_err(Error::file("write", &start))?;
        let args = arguments(kernel, &start, &self.console(), &self.results());
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let timeout = Some(BOUND);
        let file = "qemu-system-x86_64".into();
        let program = Program { file, args: &args, timeout, ..Program::default() };
        let started = Instant::now();
        let trouble = match OsRunner.run(&program) {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(Error::Failed {
                program: "qemu-system-x86_64".to_owned(),
                status: output.status.to_string(),
                said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            }),
            Err(error) => Some(error.into()),
        };
        let (results, console) = (text(&self.results()), text(&self.console()));
        Ok(Went { results, console, took: started.elapsed(), trouble })
    }
}

/// What a file holds; one that was never made holds nothing.
fn text(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// The emulator's arguments. The machine's files are shared as they are and cannot be written; there is
/// no network.
fn arguments(kernel: &Path, start: &Path, console: &Path, results: &Path) -> Vec<String> {
    let shown = |path: &Path| path.display().to_string();
    let share = format!("local,id={SHARE},path=/,security_model=none,readonly=on,multidevs=remap");
    let device = format!("virtio-9p-pci,fsdev={SHARE},mount_tag={SHARE}");
    // Whoever panics ends, as a start again is taken for an end. Time is not spent on what protects
    // from others on the same processor.
    let line = "console=ttyS0 panic=-1 oops=panic mitigations=off -- guest";
    let words = [
        "-nodefaults -no-user-config -display none -no-reboot -nic none".to_owned(),
        // All that an emulated processor can, but for a fifth level of page tables.
        "-accel tcg,thread=multi -cpu max,la57=off -smp 2 -m 3072".to_owned(),
    ];
    let mut arguments: Vec<_> =
        words.iter().flat_map(|it| it.split(' ')).map(str::to_owned).collect();
    for (option, value) in [
        ("-kernel", shown(kernel)),
        ("-initrd", shown(start)),
        ("-append", line.to_owned()),
        ("-serial", format!("file:{}", shown(console))),
        ("-serial", format!("file:{}", shown(results))),
        ("-fsdev", share),
        ("-device", device),
    ] {
        arguments.extend([option.to_owned(), value]);
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_machine_can_be_written_or_reached() {
        let [kernel, start, console, results] = ["/k", "/i", "/c", "/r"].map(Path::new);
        let line = arguments(kernel, start, console, results).join(" ");
        assert!(line.contains("readonly=on") && line.contains("-nic none"), "{line}");
        assert!(line.contains("-serial file:/c -serial file:/r"), "{line}");
    }
}
