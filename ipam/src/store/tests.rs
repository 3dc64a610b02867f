//! The store with bad luck: foreign changes, damaged indexes, full disks, other callers. Driven
//! through host-local's verbs.

use crate::index::Place;
use crate::testing::Lab;
use cni::Command;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Whether the next call can trust the index.
pub(super) fn is_indexed(lab: &Lab) -> bool {
    let directory = super::Directory::open(&lab.directory()).unwrap().unwrap();
    let table = Place::new(lab.folder.path(), "n").open(false);
    table.is_some_and(|table| super::leases::is_valid(&table, &directory, super::boot::boot_id()))
}

#[test]
fn a_call_leaves_a_valid_index_and_any_change_ends_it() {
    any_change_ends_the_index(&mut Lab::subnet("10.1.0.0/24"));
    // Its times come from the clock that stands still between ticks, as with kernels before 6.13.
    on_disk("ramfs", "", |lab, _| any_change_ends_the_index(lab));
}

fn any_change_ends_the_index(lab: &mut Lab) {
    lab.add("c1");
    assert!(is_indexed(lab), "the test needs a file system with times in nanoseconds");
    lab.check("c1").unwrap();
    lab.del("nobody");
    assert!(is_indexed(lab));
    for round in 0..50 {
        lab.write("10.1.0.200", b"x\r\neth0");
        assert!(!is_indexed(lab), "a creation right after our call was missed in round {round}");
        lab.add("c2");
        assert!(is_indexed(lab));
        fs::remove_file(lab.directory().join("10.1.0.200")).unwrap();
        assert!(!is_indexed(lab), "a removal right after our call was missed in round {round}");
        lab.del("c2");
        assert!(is_indexed(lab));
    }
}

#[test]
fn a_lease_rewritten_in_place_is_not_released_for_its_former_owner() {
    let mut lab = Lab::subnet("10.1.0.0/24");
    lab.add("c1");
    lab.write("10.1.0.2", b"c2\r\neth0");
    assert!(is_indexed(&lab));
    assert!(lab.check("c1").is_err());
    lab.del("c1");
    assert_eq!(lab.leases().into_values().collect::<Vec<_>>(), ["c2\r\neth0"]);
    // The wrong hit made the index anew.
    lab.del("c2");
    assert!(lab.leases().is_empty());
}

#[test]
fn the_index_grows_with_the_leases() {
    let mut lab = Lab::subnet("10.1.0.0/16");
    for number in 0..400 {
        lab.add(&format!("c{number}"));
    }
    assert!(is_indexed(&lab));
    assert!(fs::metadata(lab.index()).unwrap().len() >= 512 + 512 * 32);
    for number in 0..400 {
        lab.check(&format!("c{number}")).unwrap();
        lab.del(&format!("c{number}"));
    }
    assert!(is_indexed(&lab));
    assert!(lab.leases().is_empty());
}

#[test]
fn a_directory_in_another_ones_place_is_read_anew() {
    let mut lab = Lab::subnet("10.1.0.0/24");
    lab.add("c1");
    let time = fs::metadata(lab.directory()).unwrap().modified().unwrap();
    fs::remove_dir_all(lab.directory()).unwrap();
    lab.write("10.1.0.9", b"c9\r\neth0");
    File::open(lab.directory()).unwrap().set_modified(time).unwrap();
    lab.del("c9");
    assert!(lab.leases().is_empty());
    assert_eq!(lab.add("c1"), ["10.1.0.2"]);
}

#[test]
fn corrupt_leases_are_reclaimed_and_told() {
    let mut lab = Lab::subnet("10.1.0.0/29");
    for (address, content) in [(2, &b""[..]), (3, b" \n"), (4, b"\0\0\0\0\0"), (5, b"c9\r\neth0")] {
        lab.write(&format!("10.1.0.{address}"), content);
    }
    assert_eq!(lab.add("c1"), ["10.1.0.2"]);
    assert_eq!(lab.notes.len(), 3, "{:?}", lab.notes);
    assert!(lab.notes.iter().all(|note| note.contains("has no owner in it")), "{:?}", lab.notes);
    assert_eq!(lab.leases().into_keys().collect::<Vec<_>>(), ["10.1.0.2", "10.1.0.5"]);
    // Also when one shows up only as a requested address that is taken.
    fs::write(lab.directory().join("10.1.0.5"), b"").unwrap();
    assert!(is_indexed(&lab));
    lab.add_with("c2", "IP=10.1.0.5").unwrap();
    assert_eq!(lab.leases()["10.1.0.5"], "c2\r\neth0");
}

#[test]
fn what_cannot_be_read_stays_taken() {
    let mut lab = Lab::subnet("10.1.0.0/29");
    fs::create_dir_all(lab.directory()).unwrap();
    // A link to nowhere: its name is taken, and opening it fails for root too.
    std::os::unix::fs::symlink("10.1.0.2", lab.directory().join("10.1.0.2")).unwrap();
    assert_eq!(lab.try_add("c1").unwrap().ips[0].address.ip().to_string(), "10.1.0.3");
    assert!(lab.notes[0].contains("10.1.0.2 cannot be read and stays taken"), "{:?}", lab.notes);
    assert!(!is_indexed(&lab));
    let error = lab.add_with("c2", "IP=10.1.0.2").unwrap_err();
    assert!(error.to_string().contains("its lease cannot be read"), "{error}");
    lab.del("c1");
    assert!(lab.directory().join("10.1.0.2").symlink_metadata().is_ok());
    fs::remove_file(lab.directory().join("10.1.0.2")).unwrap();
    assert_eq!(lab.add("c1"), ["10.1.0.4"]);
    assert!(is_indexed(&lab));
}

fn reboot(lab: &Lab) {
    let mut table = Place::new(lab.folder.path(), "n").open(true).unwrap();
    table.set_boot([9; 16]);
    table.seal(None).unwrap();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for lease in lab.leases().into_keys() {
        File::open(lab.directory().join(lease)).unwrap().set_modified(long_ago).unwrap();
    }
}

#[test]
fn leases_from_before_this_boot_go_if_asked_for() {
    for asked in [false, true] {
        let mut lab = Lab::new(json!({"subnet": "10.1.0.0/24", "reclaimAfterReboot": asked}));
        lab.add("c1");
        lab.add("c2");
        reboot(&lab);
        // One of this boot: another plugin was quicker than us.
        lab.write("10.1.0.9", b"c9\r\neth0");
        lab.add("c3");
        let left: Vec<String> = lab.leases().into_keys().collect();
        let all = ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.9"];
        assert_eq!(left, if asked { &all[2..] } else { &all[..] });
        assert_eq!(
            lab.notes.iter().any(|note| note.contains("2 leases from before this boot")),
            asked
        );
        // Once per boot: what looks old later (a clock that was set) stays.
        let old = File::open(lab.directory().join("10.1.0.9")).unwrap();
        old.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        lab.write("10.1.0.10", b"c10\r\neth0");
        lab.del("c3");
        assert!(lab.leases().contains_key("10.1.0.9"));
    }
}

#[test]
fn an_index_of_another_boot_is_not_believed() {
    // A power cut: the index and the directory reached the disk, the lease's content did not.
    let mut lab = Lab::subnet("10.1.0.0/24");
    lab.add("c1");
    let directory = super::Directory::open(&lab.directory()).unwrap().unwrap();
    let mut table = Place::new(lab.folder.path(), "n").open(true).unwrap();
    table.set_boot([9; 16]);
    table.seal(directory.stamp().ok()).unwrap();
    fs::write(lab.directory().join("10.1.0.2"), b"\0\0\0").unwrap();
    assert!(!is_indexed(&lab));
    lab.del("c2");
    assert!(lab.leases().is_empty());
}

#[test]
fn without_a_known_boot_no_lease_goes_for_its_age() {
    let mut lab = Lab::new(json!({"subnet": "10.1.0.0/24", "reclaimAfterReboot": true}));
    lab.add("c1");
    reboot(&lab);
    fs::remove_file(lab.index()).unwrap();
    lab.add("c2");
    assert_eq!(lab.leases().len(), 2);
}

#[test]
fn many_callers_get_many_addresses() {
    let lab = Lab::new(json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]}));
    let verb = |caller: usize, round: usize, command| {
        let call = lab.call(command, &format!("c{caller}-{round}"));
        let mut notes = Vec::new();
        match command {
            Command::Add => drop(crate::host_local::add(&call, &mut notes).unwrap()),
            _ => crate::host_local::del(&call, &mut notes).unwrap(),
        }
        assert!(notes.is_empty(), "{notes:?}");
    };
    std::thread::scope(|scope| {
        for caller in 0..12 {
            let verb = &verb;
            scope.spawn(move || {
                for round in 0..10 {
                    verb(caller, round, Command::Add);
                    if round % 2 == 0 {
                        verb(caller, round, Command::Del);
                    }
                }
            });
        }
    });
    let leases = lab.leases();
    let owners: BTreeSet<&String> = leases.values().collect();
    assert_eq!((leases.len(), owners.len()), (2 * 12 * 5, 12 * 5));
    assert!(is_indexed(&lab));
}

#[test]
fn a_lock_that_is_held_ends_the_call() {
    let mut lab = Lab::subnet("10.1.0.0/24");
    lab.add("c1");
    let lock = File::open(lab.directory().join("lock")).unwrap();
    lock.lock().unwrap();
    let options = super::Options::new(lab.folder.path(), "n");
    let options = super::Options { lock_wait: Duration::from_millis(30), ..options };
    let error = super::Store::create(&options, &mut lab.notes).unwrap_err();
    assert_eq!(error.code(), 11);
    let owner = crate::lease::Owner::new("c1", "eth0");
    assert_eq!(super::has_lease(&options, &owner).unwrap_err().code(), 11);
    lock.unlock().unwrap();
    lab.check("c1").unwrap();
}

/// Runs `work` in a thread whose data directory is a file system of its own.
fn on_disk(
    kind: &'static str,
    options: &'static str,
    work: impl FnOnce(&mut Lab, &Path) + Send + 'static,
) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).expect("root is needed");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let mut lab = Lab::subnet("10.1.0.0/24");
        let path = lab.folder.path().to_owned();
        mount(Some(kind), &path, Some(kind), MsFlags::empty(), Some(options)).unwrap();
        work(&mut lab, &path);
        nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH).unwrap();
    });
    thread.join().unwrap();
}

fn fill(path: &Path) {
    let file = File::create(path.join("fill")).unwrap();
    let page = [1_u8; 4096];
    let mut at = 0;
    while file.write_all_at(&page, at).is_ok() {
        at += 4096;
    }
}

#[test]
fn a_full_disk_is_an_error_that_leaves_nothing() {
    on_disk("tmpfs", "size=256k", |lab, path| {
        lab.add("c1");
        let before = lab.files();
        fill(path);
        let error = lab.try_add("c2").unwrap_err();
        assert_eq!(error.code(), 5);
        assert!(error.to_string().contains("the file system is full"), "{error}");
        assert_eq!(lab.files(), before);
        // DEL needs no room.
        lab.del("c1");
        assert!(lab.leases().is_empty());
        fs::remove_file(path.join("fill")).unwrap();
        assert_eq!(lab.add("c2"), ["10.1.0.3"]);
        // A first ADD fails in the middle: the lease fits, the place of the round robin does not.
        fs::remove_file(lab.directory().join("last_reserved_ip.0")).unwrap();
        fill(path);
        let room = File::options().write(true).open(path.join("fill")).unwrap();
        room.set_len(room.metadata().unwrap().len() - 4096).unwrap();
        let before = lab.files();
        let error = lab.try_add("c3").unwrap_err();
        assert!(
            error.to_string().contains("cannot write")
                && error.to_string().contains("last_reserved_ip.0"),
            "{error}"
        );
        assert_eq!(lab.files(), before);
    });
}

#[test]
fn a_read_only_disk_is_an_error_that_leaves_nothing() {
    on_disk("tmpfs", "size=256k", |lab, path| {
        lab.add("c1");
        let none = None::<&str>;
        mount(none, path, none, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none).unwrap();
        let before = lab.files();
        lab.check("c1").unwrap();
        let error = lab.try_add("c2").unwrap_err();
        assert_eq!(error.code(), 5);
        assert!(error.to_string().contains("mounted read-only"), "{error}");
        let call = lab.call(Command::Del, "c1");
        assert_eq!(crate::host_local::del(&call, &mut lab.notes).unwrap_err().code(), 5);
        let status = crate::host_local::status(&lab.call(Command::Status, "")).unwrap_err();
        assert_eq!(status.code(), 50);
        assert!(status.to_string().contains("mounted read-only"), "{status}");
        lab.conf["cni.dev/valid-attachments"] = json!([]);
        let call = lab.call(Command::Gc, "");
        assert_eq!(crate::host_local::gc(&call, &mut lab.notes).unwrap_err().code(), 5);
        assert_eq!(lab.files(), before);
    });
}

#[test]
fn an_emptied_last_address_only_costs_the_round() {
    let mut lab = Lab::subnet("10.1.0.0/24");
    lab.add("c1");
    lab.add("c2");
    lab.del("c1");
    lab.write("last_reserved_ip.0", b"");
    assert_eq!(lab.add("c3"), ["10.1.0.2"]);
    assert_eq!(lab.add("c4"), ["10.1.0.4"]);
}

#[test]
fn addresses_of_ipv4_and_ipv6_do_not_meet() {
    // Equal as numbers: ::a01:2 is 10.1.0.2.
    let mut lab =
        Lab::new(json!({"ranges": [[{"subnet": "10.1.0.0/30"}], [{"subnet": "::a01:0/126"}]]}));
    lab.write(&Ipv4Addr::new(10, 1, 0, 2).to_string(), b"x\r\neth0");
    assert_eq!(lab.try_add("c1").unwrap_err().code(), 11);
    lab.del("x");
    assert_eq!(lab.add("c1"), ["10.1.0.2", "::a01:2"]);
    lab.del("c1");
    assert!(lab.leases().is_empty());
}
