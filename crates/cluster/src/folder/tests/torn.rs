//! Folders that change while they are read.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Pod;

use super::super::{Kind, Kinds};
use super::changes::{Watched, named};
use super::{DENY, Kept, POD, Sample, kept};

/// What somebody does each time the pod `mid` is read.
type Meanwhile = Box<dyn FnMut() + Send>;

/// What somebody does meanwhile.
#[derive(Clone, Default)]
struct Disturbed(Arc<Mutex<Option<Meanwhile>>>);

impl Kinds for Disturbed {
    type Object = Kept;

    const READ: &'static [Kind<Self>] = &[
        Kind {
            version: "v1",
            kind: "Pod",
            is_namespaced: true,
            read: |it, name, value| {
                if name == "shop/mid"
                    && let Some(meanwhile) = it.0.lock().unwrap().as_mut()
                {
                    meanwhile();
                }
                kept::<Pod>(&Sample, name, value)
            },
        },
        Kind {
            version: "networking.k8s.io/v1",
            kind: "NetworkPolicy",
            is_namespaced: true,
            read: |_, name, value| (Sample::READ[2].read)(&Sample, name, value),
        },
    ];
}

impl Disturbed {
    fn by(&self, meanwhile: impl FnMut() + Send + 'static) {
        *self.0.lock().unwrap() = Some(Box::new(meanwhile));
    }

    fn no_more(&self) {
        *self.0.lock().unwrap() = None;
    }
}

/// Puts a file in the place of another.
fn put(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join(".put"), text).unwrap();
    fs::rename(dir.join(".put"), dir.join(name)).unwrap();
}

/// A folder where the pod `mid` comes after `a` and ahead of `z`, which has a policy.
fn watched(z: &str) -> (Watched, Disturbed, PathBuf, String) {
    let mid = POD.replace("name: web,", "name: mid,");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    for (name, text) in [("a.yaml", POD), ("mid.yaml", &mid), ("z.yaml", z)] {
        put(&path, name, text);
    }
    let disturbed = Disturbed::default();
    let mut watched = Watched::of(dir, Path::new(""), disturbed.clone());
    assert!(watched.take(1)[0].contains("shop/deny"));
    (watched, disturbed, path, mid)
}

/// More happens in a folder than the kernel keeps for who watches it.
fn overrun(dir: &Path) {
    let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let most: usize = most.trim().parse().unwrap();
    for number in 0..=most {
        fs::write(dir.join(format!(".{}", number % 2)), "").unwrap();
    }
}

/// `mid` is read again, as something else in it says.
fn again(mid: &str) -> String {
    format!("# again\n{mid}")
}

#[test]
fn what_moves_to_a_file_that_was_read_before_stays() {
    let (mut watched, disturbed, path, mid) = watched(DENY);
    let dir = path.clone();
    let mut moves = 1;
    disturbed.by(move || {
        if moves > 0 {
            moves -= 1;
            put(&dir, "a.yaml", &format!("{POD}---\n{DENY}"));
            put(&dir, "z.yaml", &named("after"));
        }
    });
    put(&path, "mid.yaml", &again(&mid));
    assert_eq!(watched.take(1), ["+shop/after"]);
    fs::remove_file(path.join("z.yaml")).unwrap();
    assert_eq!(watched.take(1), ["-shop/after"]);
}

/// Has `mid` say something else each time that it is read.
fn never_rest(
    disturbed: &Disturbed,
    path: &Path,
    mid: &str,
    mut meanwhile: impl FnMut(u16) + Send + 'static,
) {
    let (dir, text) = (path.to_owned(), mid.to_owned());
    let mut number = 0;
    disturbed.by(move || {
        number += 1;
        put(
            &dir,
            "mid.yaml",
            &text.replace("containerPort: 80", &format!("containerPort: {number}")),
        );
        meanwhile(number);
    });
}

/// What is told until all of these are, without what never rests.
fn told(watched: &mut Watched, mut awaited: BTreeSet<&str>) -> Vec<String> {
    let mut told = Vec::new();
    while !awaited.is_empty() {
        let change = watched.take(1).remove(0);
        if change != "+shop/mid" {
            awaited.remove(&*change);
            told.push(change);
        }
    }
    told
}

#[test]
fn what_never_rests_holds_up_nothing() {
    let (mut watched, disturbed, path, mid) = watched(DENY);
    never_rest(&disturbed, &path, &mid, |_| {});
    put(&path, "mid.yaml", &again(&mid));
    put(&path, "z.yaml", &named("new"));
    put(&path, "a.yaml", &POD.replace("containerPort: 80", "containerPort: 81"));
    let all = ["+shop/new", "+shop/web", "-shop/deny"];
    assert_eq!(told(&mut watched, all.into()).len(), all.len());
    fs::remove_file(path.join("z.yaml")).unwrap();
    assert_eq!(told(&mut watched, ["-shop/new"].into()), ["-shop/new"]);
    disturbed.no_more();
}

/// As in the case above, but beside a file that never rests: at whichever of its readings.
#[test]
fn what_moves_beside_what_never_rests_stays() {
    for moved_at in 1..=9 {
        let (mut watched, disturbed, path, mid) = watched(DENY);
        let dir = path.clone();
        never_rest(&disturbed, &path, &mid, move |number| {
            if number == moved_at {
                put(&dir, "a.yaml", &format!("{POD}---\n{DENY}"));
                put(&dir, "z.yaml", &named("after"));
            }
        });
        put(&path, "mid.yaml", &again(&mid));
        assert_eq!(told(&mut watched, ["+shop/after"].into()), ["+shop/after"]);
        fs::remove_file(path.join("z.yaml")).unwrap();
        assert_eq!(told(&mut watched, ["-shop/after"].into()), ["-shop/after"], "{moved_at}");
    }
}

#[test]
fn what_never_rests_is_listed() {
    let mid = POD.replace("name: web,", "name: mid,");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    for (name, text) in [("a.yaml", POD), ("mid.yaml", &*mid), ("z.yaml", DENY)] {
        put(&path, name, text);
    }
    let disturbed = Disturbed::default();
    never_rest(&disturbed, &path, &mid, |_| {});
    let mut watched = Watched::of(dir, Path::new(""), disturbed.clone());
    let listed = watched.take(1).remove(0);
    assert!(["shop/deny", "shop/web", "shop/mid"].iter().all(|it| listed.contains(it)), "{listed}");
    disturbed.no_more();
}

/// The pass after the one that has read what is new cannot list the folder.
#[test]
fn what_was_read_before_the_folder_went_away_for_a_moment_counts() {
    let dir = tempfile::tempdir().unwrap();
    let (path, away) = (dir.path().join("sub"), dir.path().join("away"));
    fs::create_dir(&path).unwrap();
    let mid = POD.replace("name: web,", "name: mid,");
    for (name, text) in [("a.yaml", POD), ("mid.yaml", &mid)] {
        put(&path, name, text);
    }
    let disturbed = Disturbed::default();
    let mut watched = Watched::of(dir, Path::new("sub"), disturbed.clone());
    watched.take(1);
    let (from, to, mut goes) = (path.clone(), away.clone(), true);
    disturbed.by(move || {
        if std::mem::take(&mut goes) {
            fs::rename(&from, &to).unwrap();
        }
    });
    fs::write(path.join("mid.yaml"), format!("{mid}---\n{DENY}")).unwrap();
    assert!(watched.report().starts_with("folder DIR/sub: cannot be listed: No such file"));
    fs::rename(&away, &path).unwrap();
    assert_eq!(watched.take(1), ["+shop/deny"]);
}

/// The kernel may hold what it said before.
#[test]
fn there_is_no_first_list_while_somebody_writes_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let mid = POD.replace("name: web,", "name: mid,");
    for (name, text) in [("mid.yaml", &*mid), ("z.yaml", DENY)] {
        put(&path, name, text);
    }
    let (disturbed, writer) = (Disturbed::default(), Arc::new(Mutex::new(None::<File>)));
    let written = writer.clone();
    disturbed.by(move || {
        let mut file = written.lock().unwrap();
        let mut open = || File::options().append(true).open(path.join("z.yaml")).unwrap();
        file.get_or_insert_with(&mut open).write_all(b"# more\n").unwrap();
    });
    let mut watched = Watched::of(dir, Path::new(""), disturbed);
    assert_eq!(
        watched.report(),
        "DIR/z.yaml: somebody is writing it, and nothing is known of it: until that has ended all stays as it is"
    );
    watched.takes_nothing_for(Duration::from_secs(2));
    writer.lock().unwrap().take();
    assert_eq!(watched.take(1), ["shop/deny shop/mid"]);
}

/// Who has a lease on a file keeps others from reading it, and gives it back without touching the file.
#[test]
fn what_could_not_be_read_for_a_moment_is_read_later() {
    let (mut watched, _, path, _) = watched(DENY);
    put(&path, ".z.yaml", &named("new"));
    let leased = File::options().write(true).open(path.join(".z.yaml")).unwrap();
    let lease = |kind: i32| {
        // SAFETY: the descriptor is open, and the kernel takes numbers. That somebody wants to read it would end the process.
        #[expect(unsafe_code, reason = "nix has no leases")]
        let done = unsafe {
            libc::signal(libc::SIGIO, libc::SIG_IGN);
            libc::fcntl(leased.as_raw_fd(), libc::F_SETLEASE, kind)
        };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    };
    lease(libc::F_WRLCK);
    fs::rename(path.join(".z.yaml"), path.join("z.yaml")).unwrap();
    assert!(watched.report().starts_with("DIR/z.yaml: cannot be read: Resource temporarily"));
    lease(libc::F_UNLCK);
    assert_eq!(watched.take(2), ["+shop/new", "-shop/deny"]);
}

#[test]
fn what_cannot_be_read_keeps_nothing_from_going() {
    let (mut watched, _, path, _) = watched(DENY);
    symlink("/nowhere", path.join("dangling.yaml")).unwrap();
    assert!(watched.report().contains("cannot be read: No such file"));
    put(&path, "z.yaml", &named("new"));
    assert_eq!(watched.take(2), ["+shop/new", "-shop/deny"]);
}

#[test]
fn a_file_that_was_read_half_is_as_it_was_until_it_is_whole() {
    let both = format!("{DENY}---\n{}", named("second"));
    let (mut watched, disturbed, path, mid) = watched(&both);
    let (dir, writer) = (path.clone(), Arc::new(Mutex::new(None::<File>)));
    let written = writer.clone();
    disturbed.by(move || {
        let mut file = written.lock().unwrap();
        if file.is_none() {
            let mut half = File::create(dir.join("z.yaml")).unwrap();
            half.write_all(DENY.as_bytes()).unwrap();
            *file = Some(half);
            put(&dir, "a.yaml", &format!("{POD}---\n{}", named("new")));
        }
    });
    put(&path, "mid.yaml", &again(&mid));
    assert_eq!(watched.take(1), ["+shop/new"]);
    watched.takes_nothing_for(Duration::from_secs(1));
    disturbed.no_more();
    let mut file = writer.lock().unwrap().take().unwrap();
    write!(file, "---\n{}---\n{}", named("second"), named("third")).unwrap();
    drop(file);
    assert_eq!(watched.take(1), ["+shop/third"]);
}

#[test]
fn a_file_that_was_read_half_and_is_bad_then_is_as_it_was_when_it_was_good() {
    let both = format!("{DENY}---\n{}", named("second"));
    let (mut watched, disturbed, path, mid) = watched(&both);
    put(&path, "zz.yaml", &mid);
    assert!(watched.report().starts_with("Pod shop/mid: "));
    let (dir, mut writer, mut is_done) = (path.clone(), None::<File>, false);
    disturbed.by(move || match writer.take() {
        // It is read between the two.
        None if !is_done => {
            let mut half = File::create(dir.join("z.yaml")).unwrap();
            half.write_all(DENY.as_bytes()).unwrap();
            writer = Some(half);
        }
        None => {}
        Some(mut half) => {
            half.write_all(b"---\n[").unwrap();
            is_done = true;
        }
    });
    put(&path, "mid.yaml", &again(&mid));
    put(&path, "zz.yaml", &again(&mid));
    assert!(watched.report().ends_with("; what it said before stays in force"));
    put(&path, "a.yaml", &format!("{POD}---\n{}", named("new")));
    assert_eq!(watched.take(1), ["+shop/new"]);
}

#[test]
fn a_file_that_is_written_stays_as_it_was_though_more_happens_than_the_kernel_keeps() {
    let both = format!("{DENY}---\n{}", named("second"));
    let (mut watched, disturbed, path, mid) = watched(&both);
    let (dir, writer) = (path.clone(), Arc::new(Mutex::new(None::<File>)));
    let written = writer.clone();
    disturbed.by(move || {
        let mut file = written.lock().unwrap();
        if file.is_none() {
            overrun(&dir);
            let mut half = File::create(dir.join("z.yaml")).unwrap();
            half.write_all(DENY.as_bytes()).unwrap();
            *file = Some(half);
            put(&dir, "a.yaml", &format!("{POD}---\n{}", named("new")));
            let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
            File::open(dir.join("a.yaml")).unwrap().set_modified(long_ago).unwrap();
        }
    });
    put(&path, "mid.yaml", &again(&mid));
    assert_eq!(watched.take(1), ["+shop/new"]);
    disturbed.no_more();
    let mut file = writer.lock().unwrap().take().unwrap();
    write!(file, "---\n{}---\n{}", named("second"), named("third")).unwrap();
    drop(file);
    assert_eq!(watched.take(1), ["+shop/third"]);
}

#[test]
fn a_file_that_is_replaced_all_the_time_is_read_though_more_has_happened_than_the_kernel_keeps() {
    let (mut watched, _, path, _) = watched(DENY);
    let text = Arc::new(Mutex::new(DENY.to_owned()));
    let (written, dir) = (text.clone(), path.clone());
    let writer = std::thread::spawn(move || {
        for _ in 0..80 {
            put(&dir, "z.yaml", &written.lock().unwrap());
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    overrun(&path);
    watched.takes_nothing_for(Duration::from_secs(1));
    *text.lock().unwrap() = named("new");
    assert_eq!(watched.take(2), ["+shop/new", "-shop/deny"]);
    assert!(!writer.is_finished());
    writer.join().unwrap();
}
