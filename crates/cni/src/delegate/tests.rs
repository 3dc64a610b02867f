use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::{NetConf, Version};
use proptest::prelude::*;

fn call(stdin: &str) -> Call {
    Call {
        command: Command::Add,
        container_id: "cid".into(),
        netns: None,
        ifname: "eth0".into(),
        args: String::new(),
        path: String::new(),
        stdin: stdin.into(),
        conf: NetConf {
            version: Version::V0_4_0,
            name: "net".into(),
            raw: serde_json::Map::default(),
        },
    }
}

fn plugin(script: &str) -> (tempfile::TempDir, Delegate) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plugin");
    fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    let delegate = Delegate::find("plugin", folder.path().to_str().unwrap()).unwrap();
    (folder, delegate)
}

#[test]
fn names_and_paths_are_checked() {
    assert!(matches!(Delegate::find("a/b", "/bin"), Err(Error::DelegateName(_))));
    assert!(matches!(Delegate::find("", "/bin"), Err(Error::DelegateName(_))));
    assert!(matches!(Delegate::find("a", ""), Err(Error::NoPaths(_))));
    let error = Delegate::find("nosuch", "/nowhere:/else").unwrap_err();
    assert!(
        error.to_string().starts_with("failed to find plugin \"nosuch\" in path [/nowhere:/else]")
    );
}

#[test]
fn a_result_without_a_version_is_in_the_configurations() {
    let (_folder, delegate) =
        plugin("cat >&2; echo '{\"ips\":[{\"version\":\"4\",\"address\":\"10.0.0.2/24\"}]}'");
    let result = delegate.execute_add(&call("{}")).unwrap();
    assert_eq!(result.ips[0].address.to_string(), "10.0.0.2/24");
}

#[test]
fn the_plugins_own_error_passes_unchanged() {
    let (_folder, delegate) =
        plugin("echo '{\"code\":123,\"msg\":\"no\",\"details\":\"why\"}'; exit 1");
    let error = delegate.execute_add(&call("{}")).unwrap_err();
    let expected = ErrorObject { code: 123, msg: "no".into(), details: "why".into() };
    assert_eq!(ErrorObject::from(error), expected);
}

#[test]
fn failures_without_an_error_object_tell_what_there_is() {
    for (script, expected) in [
        ("exit 1", "it printed no error message"),
        ("echo boo >&2; exit 1", "it printed \"boo\""),
        ("echo boo; exit 1", "it printed no error object but \"boo\""),
    ] {
        let (_folder, delegate) = plugin(script);
        let error = delegate.execute(&call("{}"), Command::Del).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn the_command_is_overridden_and_stdin_is_passed() {
    let (_folder, delegate) = plugin("printf %s \"$CNI_COMMAND\"; cat");
    assert_eq!(delegate.execute(&call("<in>"), Command::Check).unwrap(), b"CHECK<in>");
}

#[test]
fn this_program_is_recognised_as_itself_and_as_a_copy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    std::os::unix::fs::symlink("/proc/self/exe", folder.path().join("link")).unwrap();
    assert!(Delegate::find("link", path).unwrap().is_this_program());
    fs::copy("/bin/sh", folder.path().join("other")).unwrap();
    assert!(!Delegate::find("other", path).unwrap().is_this_program());
    let own = build_id_of(Path::new("/proc/self/exe"));
    assert!(own.is_some(), "the workspace links with --build-id");
    fs::copy("/proc/self/exe", folder.path().join("copy")).unwrap();
    assert!(Delegate::find("copy", path).unwrap().is_this_program());
}

proptest! {
    #[test]
    fn any_file_has_a_build_id_or_none(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = build_id(&bytes);
        let magic = [0x7f, b'E', b'L', b'F', 2, 1];
        for (byte, magic) in bytes.iter_mut().zip(magic) {
            *byte = magic;
        }
        let _ = build_id(&bytes);
    }
}
