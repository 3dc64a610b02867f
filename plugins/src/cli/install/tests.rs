use super::*;

/// A folder as the reference suite leaves it: `bridge` and `host-local` of its own, `ptp` as a
/// relative link (as k3s has them), and a plugin that podwire does not have.
fn reference_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["bridge", "host-local", "multi-call", "macvlan"] {
        fs::write(folder.path().join(name), format!("reference {name}")).unwrap();
    }
    symlink("multi-call", folder.path().join("ptp")).unwrap();
    folder
}

/// Every name in the folder with what it leads to.
fn contents(folder: &Path) -> Vec<String> {
    let mut lines: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            match fs::read_link(&path) {
                Ok(target) => format!("{name} -> {}", target.display()),
                Err(_) if path.is_dir() => format!("{name}/"),
                Err(_) if is_podwire(&path).unwrap() => format!("{name} = podwire"),
                Err(_) => format!("{name} = {}", fs::read_to_string(&path).unwrap()),
            }
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn links_are_relative_and_others_plugins_stay() {
    let folder = reference_folder();
    install(folder.path(), Method::Link).unwrap();
    let expected = [
        ".podwire-saved/",
        "bridge -> podwire",
        "host-local -> podwire",
        "loopback -> podwire",
        "macvlan = reference macvlan",
        "multi-call = reference multi-call",
        "podwire = podwire",
        "ptp -> podwire",
        "static -> podwire",
    ];
    assert_eq!(contents(folder.path()), expected);
}

#[test]
fn uninstalling_restores_what_was_there_however_often_it_was_installed() {
    for method in [Method::Link, Method::Copy] {
        let folder = reference_folder();
        let before = contents(folder.path());
        install(folder.path(), method).unwrap();
        install(folder.path(), Method::Copy).unwrap();
        install(folder.path(), method).unwrap();
        uninstall(folder.path()).unwrap();
        assert_eq!(contents(folder.path()), before);
        uninstall(folder.path()).unwrap();
        assert_eq!(contents(folder.path()), before);
    }
}

#[test]
fn what_was_put_there_after_us_is_left_alone() {
    let folder = reference_folder();
    install(folder.path(), Method::Link).unwrap();
    let bridge = folder.path().join("bridge");
    fs::remove_file(&bridge).unwrap();
    fs::write(&bridge, "newer").unwrap();
    uninstall(folder.path()).unwrap();
    assert_eq!(fs::read_to_string(&bridge).unwrap(), "newer");
}

#[test]
fn a_newer_plugin_of_another_suite_is_the_one_that_is_restored() {
    let folder = reference_folder();
    install(folder.path(), Method::Link).unwrap();
    let bridge = folder.path().join("bridge");
    fs::remove_file(&bridge).unwrap();
    fs::write(&bridge, "newer").unwrap();
    install(folder.path(), Method::Link).unwrap();
    uninstall(folder.path()).unwrap();
    assert_eq!(fs::read_to_string(&bridge).unwrap(), "newer");
}

#[test]
fn copies_are_executable_files() {
    let folder = tempfile::tempdir().unwrap();
    let bin_dir = folder.path().join("opt/cni/bin");
    install(&bin_dir, Method::Copy).unwrap();
    let metadata = fs::symlink_metadata(bin_dir.join("bridge")).unwrap();
    assert!(metadata.is_file());
    assert_eq!(metadata.mode() & 0o777, 0o755);
}

#[test]
fn a_name_is_never_missing_while_it_is_installed() {
    let folder = reference_folder();
    install(folder.path(), Method::Link).unwrap();
    let bin_dir = folder.path().to_owned();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let looker = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let mut looks = 0u32;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                assert!(fs::metadata(bin_dir.join("bridge")).is_ok());
                looks += 1;
            }
            looks
        }
    });
    for _ in 0..4 {
        install(folder.path(), Method::Link).unwrap();
        install(folder.path(), Method::Copy).unwrap();
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(looker.join().unwrap() > 0);
}

#[test]
fn the_folders_label_is_kept() {
    // Without SELinux its attribute can still be written by root, on file systems that have any.
    let folder = tempfile::tempdir_in(".").unwrap();
    let label = b"system_u:object_r:bin_t:s0";
    xattr::set(folder.path(), SELINUX_LABEL, label).unwrap();
    install(folder.path(), Method::Copy).unwrap();
    let found = xattr::get(folder.path().join("bridge"), SELINUX_LABEL).unwrap();
    assert_eq!(found.as_deref(), Some(label.as_slice()));
}

#[test]
fn a_directory_in_the_way_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("bridge")).unwrap();
    assert!(matches!(install(folder.path(), Method::Link), Err(Error::Conflict(_))));
}
