use super::install as install_only;
use super::*;
use cni::ErrorObject;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

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

/// Puts all plugins there.
fn install(folder: &Path, method: Method) -> Result<(), Error> {
    install_only(folder, method, &plugin::ALL.map(|plugin| plugin.name()))
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
        "bandwidth -> podwire",
        "bridge -> podwire",
        "firewall -> podwire",
        "host-local -> podwire",
        "loopback -> podwire",
        "macvlan = reference macvlan",
        "multi-call = reference multi-call",
        "podwire = podwire",
        "podwire-policy -> podwire",
        "portmap -> podwire",
        "ptp -> podwire",
        "sbr -> podwire",
        "static -> podwire",
        "tuning -> podwire",
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
fn beside_another_suite_only_what_was_asked_for_is_installed() {
    let folder = reference_folder();
    let before = contents(folder.path());
    install_only(folder.path(), Method::Link, &["podwire-policy"]).unwrap();
    let mut expected = before.clone();
    expected.extend(["podwire = podwire", "podwire-policy -> podwire"].map(str::to_owned));
    expected.sort();
    assert_eq!(contents(folder.path()), expected);
    uninstall(folder.path()).unwrap();
    assert_eq!(contents(folder.path()), before);
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

/// Installs, which must fail and change nothing; the error's text.
fn must_refuse(folder: &Path, before: &[String]) -> String {
    let mut texts = Vec::new();
    for method in [Method::Link, Method::Copy] {
        texts.push(ErrorObject::from(install(folder, method).unwrap_err()).msg);
        assert_eq!(names(folder), before);
    }
    texts.concat()
}

/// Every name in the folder and below, with what is there.
fn names(folder: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type().unwrap())).unwrap();
        let content = if kind.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        lines.push(format!("{} {kind:?} {}", path.display(), String::from_utf8_lossy(&content)));
        if kind.is_dir() {
            lines.extend(names(&path));
        }
    }
    lines.sort();
    lines
}

#[test]
fn what_is_no_file_is_refused_before_anything_is_changed() {
    for name in ["podwire", "bridge", "static", ".podwire-saved/host-local"] {
        let folder = reference_folder();
        let path = folder.path().join(name);
        let _ = fs::remove_file(&path);
        fs::create_dir_all(&path).unwrap();
        let before = names(folder.path());
        assert!(must_refuse(folder.path(), &before).contains(path.to_str().unwrap()));

        fs::remove_dir(&path).unwrap();
        mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
        let before = names(folder.path());
        assert!(must_refuse(folder.path(), &before).contains("neither a file nor a link"));
        // Nor is it waited for, or removed.
        uninstall(folder.path()).unwrap();
        assert_eq!(names(folder.path()), before);
    }
}

#[test]
fn a_name_that_cannot_be_replaced_takes_the_others_back() {
    let work = || {
        unshare(CloneFlags::CLONE_NEWNS).expect("root is needed");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        for is_upgrade in [false, true] {
            let folder = reference_folder();
            if is_upgrade {
                install(folder.path(), Method::Copy).unwrap();
            }
            // The last name, after all others are changed: nothing is renamed over a mount point.
            let last = folder.path().join("static");
            fs::write(&last, "another").unwrap();
            let before = names(folder.path());
            mount(Some(&last), &last, none, MsFlags::MS_BIND, none).unwrap();
            assert!(must_refuse(folder.path(), &before).contains("static"));
            umount2(&last, MntFlags::MNT_DETACH).unwrap();
        }
    };
    std::thread::spawn(work).join().unwrap();
}

/// A folder in which an installation was killed after it had changed so many names.
fn killed_after(count: usize) -> tempfile::TempDir {
    let folder = reference_folder();
    let plan = |name, method| Change::plan(folder.path(), name, method).unwrap();
    let program = plan(PROGRAM, Method::Copy);
    let plugins = plugin::ALL.iter().map(|plugin| plan(plugin.name(), Method::Link));
    let changes: Vec<Change> = [program].into_iter().chain(plugins).collect();
    changes.iter().for_each(|change| change.prepare().unwrap());
    changes.iter().take(count).for_each(|change| change.make().unwrap());
    folder
}

#[test]
fn a_killed_installation_has_lost_nothing() {
    let before = contents(reference_folder().path());
    for count in 0..=plugin::ALL.len() {
        for goes_on in [true, false] {
            let folder = killed_after(count);
            if goes_on {
                install(folder.path(), Method::Link).unwrap();
                let hidden = contents(folder.path()).into_iter().filter(|l| l.starts_with('.'));
                assert_eq!(hidden.collect::<Vec<_>>(), [".podwire-saved/"]);
            }
            uninstall(folder.path()).unwrap();
            assert_eq!(contents(folder.path()), before, "{count} {goes_on}");
        }
    }
}

#[test]
fn copies_under_names_that_are_not_ours_stay() {
    let folder = reference_folder();
    install(folder.path(), Method::Copy).unwrap();
    let (ours, theirs) = (folder.path().join("bridge"), folder.path().join("my-bridge"));
    fs::copy(&ours, &theirs).unwrap();
    symlink("podwire", folder.path().join("vlan")).unwrap();
    uninstall(folder.path()).unwrap();
    assert!(is_podwire(&theirs).unwrap());
    assert!(folder.path().join("vlan").is_symlink());
    assert!(!is_podwire(&ours).unwrap());
}
