//! Folders that change while they are watched.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, channel, unbounded_channel};
use tokio::time::timeout;

use k8s_openapi::api::core::v1::Pod;

use super::super::{Folder, Kind, Kinds, Report};
use super::{DENY, Kept, POD, Sample, kept};
use crate::Change;

/// Nothing here takes this long, unless it hangs.
const BOUND: Duration = Duration::from_secs(20);

/// A folder that a source watches.
pub(super) struct Watched {
    dir: TempDir,
    runtime: Runtime,
    changes: Receiver<Change<Kept>>,
    reports: UnboundedReceiver<String>,
}

impl Watched {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        Self::at(dir, Path::new(""))
    }

    /// Watches `sub` of `dir`.
    fn at(dir: TempDir, sub: &Path) -> Self {
        Self::of(dir, sub, Sample)
    }

    pub(super) fn of(dir: TempDir, sub: &Path, kinds: impl Kinds<Object = Kept> + Send) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (sender, changes) = channel(4);
        let (told, reports) = unbounded_channel();
        let folder = Folder::new(dir.path().join(sub), kinds);
        let report = move |it: &Report| told.send(it.to_string()).unwrap();
        runtime.spawn(folder.run(sender, |changes| changes, report, |_| ()));
        Self { dir, runtime, changes, reports }
    }

    /// The folder whose first list was received.
    fn listed(files: &[(&str, &str)]) -> Self {
        let mut watched = Self::new(files);
        watched.take(1);
        watched
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Writes a file beside the folder's and moves it to `name`.
    fn replace(&self, name: &str, text: &str) {
        self.write(".new", text);
        fs::rename(self.path(".new"), self.path(name)).unwrap();
    }

    pub(super) fn take(&mut self, count: usize) -> Vec<String> {
        let Self { runtime, changes, .. } = self;
        let mut next = || runtime.block_on(async { timeout(BOUND, changes.recv()).await });
        (0..count).map(|_| text(next().unwrap().unwrap())).collect()
    }

    /// Nothing is told for so long.
    pub(super) fn takes_nothing_for(&mut self, time: Duration) {
        let Self { runtime, changes, .. } = self;
        let next = runtime.block_on(async { timeout(time, changes.recv()).await });
        assert!(next.is_err(), "{:?}", next.map(|it| it.map(text)));
    }

    /// The next report, with the folder's path left out.
    pub(super) fn report(&mut self) -> String {
        let next = async { timeout(BOUND, self.reports.recv()).await.unwrap().unwrap() };
        self.runtime.block_on(next).replace(self.dir.path().to_str().unwrap(), "DIR")
    }
}

fn text(change: Change<Kept>) -> String {
    match change {
        Change::Applied(it) => format!("+{}", it.name),
        Change::Removed(it) => format!("-{}", it.name),
        Change::Listed(all) => all.into_iter().map(|it| it.name).collect::<Vec<_>>().join(" "),
    }
}

pub(super) fn named(name: &str) -> String {
    DENY.replace("deny", name)
}

#[test]
fn a_list_comes_first() {
    let mut watched = Watched::new(&[("pod.yaml", POD), ("deny.yml", DENY), ("notes.txt", "{")]);
    assert_eq!(watched.take(1), ["shop/deny shop/web"]);
    let mut watched = Watched::new(&[]);
    assert_eq!(watched.take(1), [""]);
}

#[test]
fn files_come_change_and_go() {
    let mut watched = Watched::listed(&[("pod.yaml", POD)]);
    watched.write("deny.yaml", DENY);
    assert_eq!(watched.take(1), ["+shop/deny"]);
    watched.write("deny.yaml", &DENY.replace("podSelector: {}", "ingress: [{}]"));
    assert_eq!(watched.take(1), ["+shop/deny"]);
    watched.replace("deny.yaml", &named("other"));
    assert_eq!(watched.take(2), ["+shop/other", "-shop/deny"]);
    fs::remove_file(watched.path("pod.yaml")).unwrap();
    assert_eq!(watched.take(1), ["-shop/web"]);
}

/// Of which what can be read counts.
struct Forgiving;

impl Kinds for Forgiving {
    type Object = Kept;

    const NEEDS_ALL: bool = false;

    const READ: &'static [Kind<Self>] = &[Kind {
        version: "v1",
        kind: "Pod",
        is_namespaced: true,
        read: |_, name, value| kept::<Pod>(&Sample, name, value),
    }];
}

#[test]
fn what_can_be_read_of_a_file_that_was_never_good_counts_where_not_all_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let pod = |name: &str| POD.replace("web", name);
    let bad = POD.replace("{namespace: shop", "{namespace: [shop]");
    fs::write(dir.path().join("one.yaml"), format!("{}---\n{bad}", pod("a"))).unwrap();
    fs::write(dir.path().join("two.yaml"), "[").unwrap();
    fs::write(dir.path().join("three.yaml"), pod("b")).unwrap();
    let mut watched = Watched::of(dir, Path::new(""), Forgiving);
    assert_eq!(watched.take(1), ["shop/a shop/b"]);
    for file in ["one", "two"] {
        let told = watched.report();
        assert!(told.starts_with(&format!("DIR/{file}.yaml: document ")), "{told}");
        assert!(told.ends_with("; what else this file says is in force"), "{told}");
    }
    // Once good it stays as it was then.
    watched.write("one.yaml", &format!("{}---\n{}", pod("a"), pod("c")));
    assert_eq!(watched.take(1), ["+shop/c"]);
    watched.write("one.yaml", &bad);
    let told = watched.report();
    assert!(told.ends_with("; what it said before stays in force"), "{told}");
    watched.write("two.yaml", &format!("{}---\n{bad}", pod("d")));
    assert_eq!(watched.take(1), ["+shop/d"]);
}

#[test]
fn a_bad_file_stays_as_it_was_and_the_others_go_on() {
    let mut watched = Watched::listed(&[("deny.yaml", DENY)]);
    watched.write("deny.yaml", &format!("{POD}---\n{}", DENY.replace("{podSelector", "[{x")));
    let text = watched.report();
    assert!(text.starts_with("DIR/deny.yaml: document 2: "), "{text}");
    assert!(text.ends_with("; what it said before stays in force"), "{text}");
    watched.write("bad.json", "{}");
    assert_eq!(
        watched.report(),
        "DIR/bad.json: document 1: no object of Kubernetes: apiVersion and kind are needed; nothing of this file is in force"
    );
    watched.write("other.yaml", &named("other"));
    assert_eq!(watched.take(1), ["+shop/other"]);
    watched.write("deny.yaml", &named("good-again"));
    assert_eq!(watched.take(2), ["+shop/good-again", "-shop/deny"]);
}

#[test]
fn there_is_no_first_list_before_each_file_was_good() {
    let mut watched = Watched::new(&[("deny.yaml", DENY), ("bad.yaml", "{"), ("gone.json", "{}")]);
    let texts = [watched.report(), watched.report()];
    for text in texts {
        assert!(text.ends_with("until it is good or gone, all stays as it is"), "{text}");
    }
    fs::remove_file(watched.path("gone.json")).unwrap();
    watched.write("more.yaml", &named("more"));
    // Time to do what would be wrong.
    std::thread::sleep(Duration::from_millis(500));
    watched.write("bad.yaml", &named("good"));
    let first = watched.take(1).remove(0);
    assert!(first.contains("shop/deny") && first.contains("shop/good"), "{first}");
    assert!(first.contains("shop/more"), "{first}");
}

#[test]
fn what_is_no_file_is_told() {
    let mut watched = Watched::listed(&[]);
    symlink("/nowhere", watched.path("dangling.yaml")).unwrap();
    let text = watched.report();
    assert!(text.starts_with("DIR/dangling.yaml: cannot be read: No such file"), "{text}");
    fs::create_dir(watched.path("folder.yaml")).unwrap();
    let text = watched.report();
    assert_eq!(
        text,
        "DIR/folder.yaml: cannot be read: it is no regular file; nothing of this file is in force"
    );
    nix::unistd::mkfifo(&watched.path("pipe.yaml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(watched.report().starts_with("DIR/pipe.yaml: cannot be read: it is no regular file"));
}

#[test]
fn kinds_that_are_not_needed_and_duplicates_are_told_once() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n";
    let text = format!("{DENY}---\n{service}---\n{service}");
    let mut watched = Watched::listed(&[("a.yaml", &text), ("b.yaml", DENY)]);
    assert_eq!(
        watched.report(),
        "DIR/a.yaml document 2: v1 Service is not needed and passed over, as are others of that kind in this file"
    );
    assert_eq!(
        watched.report(),
        "NetworkPolicy shop/deny: DIR/a.yaml document 1 and DIR/b.yaml document 1 have it; the first one counts"
    );
    // Neither is told again, but of a new one.
    watched.write("c.yaml", DENY);
    assert_eq!(
        watched.report(),
        "NetworkPolicy shop/deny: DIR/a.yaml document 1 and DIR/c.yaml document 1 have it; the first one counts"
    );
}

#[test]
fn a_copy_takes_the_place_of_nothing_that_is_in_force() {
    let of_nobody = DENY.replace("podSelector: {}", "podSelector: {matchLabels: {no: body}}");
    assert_ne!(of_nobody, DENY);
    let mut watched = Watched::listed(&[("pol.yaml", DENY)]);
    watched.write("a-copy.yaml", &of_nobody);
    assert_eq!(
        watched.report(),
        "NetworkPolicy shop/deny: DIR/pol.yaml document 1 and DIR/a-copy.yaml document 1 have it; the first one counts"
    );
    watched.write("pol.yaml", &format!("# touched\n{DENY}"));
    watched.write("other.yaml", &named("other"));
    assert_eq!(watched.take(1), ["+shop/other"]);
    // It does once the other is gone.
    fs::remove_file(watched.path("pol.yaml")).unwrap();
    assert_eq!(watched.take(1), ["+shop/deny"]);
}

#[test]
fn a_file_is_not_read_while_it_is_written() {
    let mut watched = Watched::listed(&[("deny.yaml", &format!("{DENY}---\n{}", named("second")))]);
    let mut file = File::create(watched.path("deny.yaml")).unwrap();
    file.write_all(DENY.as_bytes()).unwrap();
    file.sync_all().unwrap();
    watched.write("other.yaml", &named("other"));
    // With half of the file read, `second` would be gone by now.
    assert_eq!(watched.take(1), ["+shop/other"]);
    write!(file, "---\n{}---\n{}", named("second"), named("third")).unwrap();
    drop(file);
    assert_eq!(watched.take(1), ["+shop/third"]);
}

#[test]
fn an_editor_that_renames_the_old_file_away_removes_nothing() {
    let mut watched = Watched::listed(&[("deny.yaml", DENY)]);
    fs::rename(watched.path("deny.yaml"), watched.path("deny.yaml~")).unwrap();
    watched.write("deny.yaml", &format!("{DENY}---\n{}", named("second")));
    fs::remove_file(watched.path("deny.yaml~")).unwrap();
    assert_eq!(watched.take(1), ["+shop/second"]);
}

#[test]
fn a_config_map_volume_changes_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let version = |version: &str, files: &[(&str, &str)]| {
        let folder = dir.path().join(version);
        fs::create_dir(&folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
        symlink(version, dir.path().join("..data_tmp")).unwrap();
        fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    };
    version("..1", &[("a.yaml", DENY), ("b.yaml", POD)]);
    for name in ["a.yaml", "b.yaml"] {
        symlink(format!("..data/{name}"), dir.path().join(name)).unwrap();
    }
    let path = dir.path().to_owned();
    let mut watched = Watched::at(tempfile::tempdir().unwrap(), &path);
    watched.take(1);
    version("..2", &[("a.yaml", &named("new")), ("b.yaml", POD)]);
    fs::remove_dir_all(path.join("..1")).unwrap();
    assert_eq!(watched.take(2), ["+shop/new", "-shop/deny"]);
}

#[test]
fn a_folder_that_goes_away_removes_nothing_and_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut watched = Watched::at(dir, Path::new("sub"));
    assert!(watched.report().starts_with("folder DIR/sub: cannot be listed: No such file"));
    let sub = watched.path("sub");
    fs::create_dir(&sub).unwrap();
    fs::write(sub.join("a.yaml"), DENY).unwrap();
    assert_eq!(watched.take(1), ["shop/deny"]);

    fs::rename(&sub, watched.path("away")).unwrap();
    assert!(watched.report().starts_with("folder DIR/sub: cannot be listed: No such file"));
    fs::create_dir(&sub).unwrap();
    fs::write(sub.join("a.yaml"), format!("{DENY}---\n{}", named("b"))).unwrap();
    assert_eq!(watched.take(1), ["+shop/b"]);
    fs::write(sub.join("c.yaml"), named("c")).unwrap();
    assert_eq!(watched.take(1), ["+shop/c"]);
}
