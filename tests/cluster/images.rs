//! How images are packed.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::{program, workspace};

/// What has scripts/archive pack `root` into `file`, for somebody who withholds these rights from others.
fn archive(umask: &str, root: &Path, file: &Path) -> Command {
    let mut command = program("sh");
    let line = format!("umask {umask}; exec \"$@\"");
    command.args(["-euc", &line, "archive"]).arg(workspace().join("scripts/archive"));
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
