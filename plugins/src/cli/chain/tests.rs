use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use super::*;

const LIST: &str = "{\"plugins\": [ {\"type\": \"flannel\"} ]}\n";
const CHAINED: &str =
    "{\"plugins\": [ {\"type\": \"flannel\"}, {\"type\": \"podwire-policy\"} ]}\n";

/// No folder of plugins, as in a container.
const NOWHERE: &str = "/nonexistent";

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn a_file_keeps_its_mode_and_owner_and_no_other_file_is_left() {
    let folder =
        folder(&[("10-flannel.conflist", LIST), (".10-flannel.conflist.podwire-new", "{")]);
    let file = folder.path().join("10-flannel.conflist");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(&file, Some(7), Some(8)).unwrap();
    assert!(put_into(&file, Path::new(NOWHERE)).unwrap());
    assert!(!put_into(&file, Path::new(NOWHERE)).unwrap());
    assert_eq!(fs::read_to_string(&file).unwrap(), CHAINED);
    let metadata = fs::metadata(&file).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()), (0o640, 7, 8));
    unchain(&file).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), LIST);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    fs::remove_file(&file).unwrap();
    unchain(&file).unwrap();
    assert!(put_into(&file, Path::new(NOWHERE)).is_err());
}

#[test]
fn a_list_is_not_given_a_plugin_that_the_runtime_does_not_have() {
    let (folder, plugins) = (folder(&[("a.conflist", LIST)]), folder(&[]));
    let file = folder.path().join("a.conflist");
    let error = put_into(&file, plugins.path()).unwrap_err().to_string();
    assert!(
        error.contains("a.conflist: not chained") && error.contains("podwire install"),
        "{error}"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), LIST);
    fs::write(plugins.path().join("podwire-policy"), "").unwrap();
    assert!(put_into(&file, plugins.path()).unwrap());
}

#[test]
fn why_a_file_is_left_alone_is_told() {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
    let long = format!("{}{LIST}", " ".repeat(1 << 20));
    let not_seen = "only by the ending .conflist";
    for (name, text, words) in [
        ("a.conf", LIST, not_seen),
        ("b.json", LIST, not_seen),
        ("c.conflist.bak", LIST, not_seen),
        ("d.conflist", &deep, "nested too deep"),
        ("e.conflist", &long, "larger than a list can be (1048576 bytes)"),
    ] {
        let folder = folder(&[(name, text)]);
        let file = folder.path().join(name);
        let error = chain(&file, Path::new(NOWHERE)).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

#[test]
fn a_link_stays_and_what_it_leads_to_is_changed() {
    let (folder, elsewhere) = (folder(&[]), folder(&[("list", LIST)]));
    let (link, target) = (folder.path().join("a.conflist"), elsewhere.path().join("list"));
    symlink(&target, &link).unwrap();
    assert!(put_into(&link, Path::new(NOWHERE)).unwrap());
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&target).unwrap(), CHAINED);
}

#[test]
fn what_the_owner_wrote_meanwhile_is_not_overwritten() {
    let folder = folder(&[("a.conflist", "{}")]);
    let file = folder.path().join("a.conflist");
    assert_eq!(replace(&file, LIST.as_bytes(), CHAINED).unwrap(), Outcome::Changed);
    assert_eq!(fs::read_to_string(&file).unwrap(), "{}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn what_cannot_be_given_back_is_kept() {
    let folder = folder(&[("a.conflist", CHAINED), (".a.conflist.podwire-new", LIST)]);
    let at = |name: &str| folder.path().join(name);
    let error = replace::keep(&at("a.conflist"), &at(".a.conflist.podwire-new"), Errno::IO);
    let error = error.to_string();
    assert!(error.contains(".a.conflist.podwire-kept") && error.contains("to "), "{error}");
    assert_eq!(fs::read_to_string(at(".a.conflist.podwire-kept")).unwrap(), LIST);
    // The next change takes nothing of it.
    unchain(&at("a.conflist")).unwrap();
    assert_eq!(fs::read_to_string(at(".a.conflist.podwire-kept")).unwrap(), LIST);
}

/// He writes at any time while it is being changed, in place or by a rename.
#[test]
fn what_the_owner_writes_while_it_is_chained_is_what_the_file_has_in_the_end() {
    let folder = folder(&[("a.conflist", LIST)]);
    let file = folder.path().join("a.conflist");
    for turn in 0..100 {
        fs::write(&file, LIST).unwrap();
        let mine = LIST.replace("flannel", &format!("flannel-{turn}"));
        let draft = folder.path().join("draft");
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_micros(turn * 50));
                if turn % 2 == 0 {
                    fs::write(&draft, &mine).unwrap();
                    fs::rename(&draft, &file).unwrap();
                } else {
                    let mut written = fs::File::create(&file).unwrap();
                    thread::sleep(Duration::from_millis(1));
                    written.write_all(mine.as_bytes()).unwrap();
                }
            });
            // Seen half written it is no list.
            let _ = put_into(&file, Path::new(NOWHERE));
        });
        let name = format!("\"flannel-{turn}\"");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(&name), "{turn}: {text}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

#[test]
fn multus_is_left_alone_and_the_right_file_named() {
    let multus =
        r#"{"type": "multus-shim", "clusterNetwork": "/host/etc/cni/net.d/20-b.conflist"}"#;
    let folder = folder(&[
        ("00-multus.conf", multus),
        ("01-multus.conflist", r#"{"plugins": [{"type": "multus"}]}"#),
        ("10-a.conflist", LIST),
        ("20-b.conflist", LIST),
    ]);
    for (name, right) in
        [("00-multus.conf", "20-b.conflist"), ("01-multus.conflist", "10-a.conflist")]
    {
        let file = folder.path().join(name);
        let before = fs::read(&file).unwrap();
        let error = put_into(&file, Path::new(NOWHERE)).unwrap_err().to_string();
        let wanted = format!("use --into {}", folder.path().join(right).display());
        assert!(error.contains("Multus") && error.ends_with(&wanted), "{error}");
        assert_eq!(fs::read(&file).unwrap(), before);
    }
}

#[test]
fn a_single_plugin_is_refused_with_what_to_do() {
    let folder = folder(&[("10-bridge.conf", r#"{"name": "n", "type": "bridge"}"#)]);
    let error = put_into(&folder.path().join("10-bridge.conf"), Path::new(NOWHERE))
        .unwrap_err()
        .to_string();
    assert!(error.contains("10-bridge.conf: this is a single plugin"), "{error}");
    assert!(error.contains(".conflist"), "{error}");
}

#[test]
fn every_list_of_a_folder_gives_its_bytes_back() {
    let multus = r#"{"plugins": [{"type": "multus"}, {"type": "podwire-policy"}]}"#;
    let others = [
        ("00-multus.conflist", multus),
        ("10-torn.conflist", "{"),
        ("20-plain.conflist", LIST),
        ("30-single.conf", CHAINED),
        ("notes.txt", CHAINED),
    ];
    let folder = folder(&others);
    for name in ["05-a.conflist", "15-b.conflist"] {
        fs::write(folder.path().join(name), CHAINED).unwrap();
    }
    let odd = folder.path().join("10-folder.conflist");
    fs::create_dir(&odd).unwrap();
    unchain_all(folder.path()).unwrap();
    fs::remove_dir(&odd).unwrap();
    let text = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!([text("05-a.conflist"), text("15-b.conflist")], [LIST, LIST]);
    for (name, before) in others {
        assert_eq!(text(name), before);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), others.len() + 2);
    unchain_all(&folder.path().join("no-such")).unwrap();
}

#[test]
fn a_pipe_is_refused_at_once() {
    let folder = folder(&[]);
    let pipe = folder.path().join("10-pipe.conflist");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = change(&pipe, edit::chained).unwrap_err().to_string();
    assert!(error.contains("10-pipe.conflist is not a regular file"), "{error}");
}
