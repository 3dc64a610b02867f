//! How images are packed.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use lab::{program, workspace};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(20);

/// What has scripts/archive pack `root` into `file`, for somebody who withholds these rights from others.
fn archive(umask: &str, root: &Path, file: &Path) -> Command {
    // Whoever runs the tests may have it ignore signals (nohup).
    let mut command = program("env");
    let line = format!("umask {umask}; exec \"$@\"");
    command
        .args(["--default-signal=HUP,INT", "sh", "-euc", &line, "archive"])
        .arg(workspace().join("scripts/archive"));
    command.arg(file).args(["test:1"]).arg(root).arg(r#"{"Entrypoint": ["/bin/run"]}"#);
    command
}

/// A root as the same sources leave it with these rights withheld.
fn root(folder: &Path, umask: u32) -> PathBuf {
    let root = folder.join(format!("root-{umask:o}"));
    for (name, mode) in [("", 0o777), ("bin", 0o777), ("tmp", 0o1777), ("etc", 0o777)] {
        fs::create_dir_all(root.join(name)).unwrap();
        let mode = if name == "tmp" { mode } else { mode & !umask };
        fs::set_permissions(root.join(name), Permissions::from_mode(mode)).unwrap();
    }
    for (name, mode) in [("bin/run", 0o777), ("etc/protocols", 0o666)] {
        fs::write(root.join(name), name).unwrap();
        fs::set_permissions(root.join(name), Permissions::from_mode(mode & !umask)).unwrap();
    }
    root
}

fn output(name: &str, arguments: &[&str]) -> String {
    let output = program(name).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn an_image_is_the_same_whatever_its_maker_withholds_from_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut made = Vec::new();
    for umask in [0o022, 0o077, 0o002] {
        let file = folder.path().join(format!("{umask:o}.tar"));
        let mut command = archive(&format!("{umask:03o}"), &root(folder.path(), umask), &file);
        let ended = command.output().unwrap();
        assert!(ended.status.success(), "{ended:?}");
        made.push(fs::read(file).unwrap());
    }
    assert!(made.iter().all(|it| *it == made[0]));
    let unpacked = folder.path().join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    let [file, unpacked_text] =
        [&folder.path().join("77.tar"), &unpacked].map(|it| it.to_str().unwrap().to_owned());
    output("tar", &["-xf", &file, "-C", &unpacked_text]);
    let mut layers = fs::read_dir(&unpacked).unwrap().map(|it| it.unwrap().path());
    let layer = layers.find(|it| it.extension().is_some_and(|it| it == "tar")).unwrap();
    let listed = output("tar", &["-tvf", layer.to_str().unwrap()]);
    let modes: BTreeMap<&str, &str> = listed
        .lines()
        .map(|line| (line.rsplit(' ').next().unwrap(), line.split(' ').next().unwrap()))
        .collect();
    let expected = [
        ("./", "drwxr-xr-x"),
        ("./bin/", "drwxr-xr-x"),
        ("./bin/run", "-rwxr-xr-x"),
        ("./etc/", "drwxr-xr-x"),
        ("./etc/protocols", "-rw-r--r--"),
        ("./tmp/", "drwxrwxrwt"),
    ];
    assert_eq!(modes, expected.into());
}

#[test]
fn who_is_ended_midway_leaves_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let [bin, temporary] = ["bin", "tmp"].map(|it| folder.path().join(it));
    for it in [&bin, &temporary] {
        fs::create_dir(it).unwrap();
    }
    // It never has packed anything.
    let packs = folder.path().join("packs");
    let text = format!("#!/bin/sh\n: >{}\nexec sleep 600\n", packs.display());
    fs::write(bin.join("tar"), text).unwrap();
    fs::set_permissions(bin.join("tar"), Permissions::from_mode(0o755)).unwrap();
    let root = root(folder.path(), 0o022);
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let files = || fs::read_dir(&temporary).unwrap().count();
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let mut command = archive("022", &root, &folder.path().join("image.tar"));
        command.env("PATH", &path).env("TMPDIR", &temporary).process_group(0);
        let mut script = command.spawn().unwrap();
        let group = Pid::from_raw(i32::try_from(script.id()).unwrap());
        let began = Instant::now();
        while !packs.exists() {
            assert!(began.elapsed() < PATIENCE, "it does not begin");
            sleep(Duration::from_millis(5));
        }
        assert_eq!(files(), 1);
        fs::remove_file(&packs).unwrap();
        killpg(group, signal).unwrap();
        assert!(!script.wait().unwrap().success());
        assert_eq!(files(), 0, "{signal}");
    }
}
