//! Pipes, devices and links in the place of the store's files.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::json;

use super::tests::is_indexed;
use crate::testing::Lab;

fn pipe(path: &Path) {
    let _ = fs::remove_file(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    mkfifo(path, Mode::from_bits_truncate(0o600)).unwrap();
}

/// Each of these opens would wait for a writer.
#[test]
fn pipes_in_the_place_of_files_are_not_waited_for() {
    let mut lab = Lab::subnet("10.1.0.0/29");
    // Whatever can be locked is a lock.
    pipe(&lab.directory().join("lock"));
    lab.add("c1");
    lab.check("c1").unwrap();
    // An index that is none is made anew.
    pipe(&lab.index());
    lab.check("c1").unwrap();
    lab.add("c2");
    assert!(is_indexed(&lab));
    pipe(&lab.directory().join("last_reserved_ip.0"));
    let error = lab.try_add("c3").unwrap_err();
    assert!(error.to_string().contains("last_reserved_ip.0 (a pipe or a device"), "{error}");
    assert_eq!(error.code(), 5);
    fs::remove_file(lab.directory().join("last_reserved_ip.0")).unwrap();
    // An address whose lease is a pipe is taken, and is not removed for being empty.
    pipe(&lab.directory().join("10.1.0.4"));
    assert_eq!(lab.add("c3"), ["10.1.0.5"]);
    let error = lab.add_with("c4", "IP=10.1.0.4").unwrap_err();
    assert!(error.to_string().contains("it is no regular file"), "{error}");
    let resolv_conf = lab.folder.path().join("resolv.conf");
    pipe(&resolv_conf);
    lab.conf["ipam"]["resolvConf"] = json!(resolv_conf);
    lab.add("c5");
}

#[test]
fn lease_files_without_end_are_not_read() {
    let mut lab = Lab::subnet("10.1.0.0/29");
    lab.add("c1");
    symlink("/dev/zero", lab.directory().join("10.1.0.3")).unwrap();
    lab.write("10.1.0.4", b"x");
    let long = File::options().write(true).open(lab.directory().join("10.1.0.4")).unwrap();
    long.set_len(1 << 40).unwrap();
    assert_eq!(lab.add("c2"), ["10.1.0.5"]);
    assert!(lab.notes.iter().any(|note| note.contains("no regular file")), "{:?}", lab.notes);
    assert!(
        lab.notes.iter().any(|note| note.contains("10.1.0.4 cannot be read")),
        "{:?}",
        lab.notes
    );
}

#[test]
fn the_new_index_is_not_written_through_a_link() {
    let mut lab = Lab::subnet("10.1.0.0/29");
    lab.add("c1");
    let precious = lab.folder.path().join("precious");
    for is_symbolic in [true, false] {
        fs::write(&precious, "precious").unwrap();
        fs::remove_file(lab.index()).unwrap();
        let new = lab.folder.path().join(".podwire/.new-n");
        if is_symbolic {
            symlink(&precious, &new).unwrap();
        } else {
            fs::hard_link(&precious, &new).unwrap();
        }
        lab.del("nobody");
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        assert!(is_indexed(&lab));
    }
}
