//! What the program answers when it is asked once.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report of a failure")]

use std::fs;
use std::time::Duration;

use runner::{OsRunner, Output, Program, Runner};

const MANIFEST: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec: {containers: [{name: c}]}
status: {podIPs: [{ip: 10.0.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec: {containers: [{name: c}]}
status: {podIPs: [{ip: 10.0.0.2}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: shop}
spec: {podSelector: {}, egress: []}
";

fn policyd(args: &[&str]) -> Output {
    let file = env!("CARGO_BIN_EXE_policyd").into();
    let timeout = Some(Duration::from_secs(30));
    // A terminal of an administrator has it: a folder that is named counts all the same.
    let env = vec![("KUBECONFIG", "/nonexistent".into())];
    OsRunner.run(&Program { file, args, env, timeout, ..Program::default() }).unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("shop.yaml"), MANIFEST).unwrap();
    folder
}

#[test]
fn a_folder_of_manifests_is_explained() {
    let folder = folder();
    let dir = folder.path().to_str().unwrap();
    let ask = ["explain", "--manifests", dir, "--from", "shop/client", "--to", "shop/web"];
    let answer = policyd(&[&ask[..], &["--port", "80/TCP"]].concat());
    assert!(answer.status.success(), "{answer:?}");
    let said = text(&answer.stdout);
    assert!(said.starts_with("shop/client to shop/web, 80/TCP: denied\n"), "{said}");
    let json = policyd(&[&ask[..], &["--output", "json"]].concat());
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["outcome"], "denied");
}

#[test]
fn what_cannot_be_answered_is_told_and_fails() {
    let folder = folder();
    let dir = folder.path().to_str().unwrap();
    let ask = ["explain", "--manifests", dir, "--from", "shop/other", "--to", "shop/web"];
    let answer = policyd(&ask);
    assert_eq!(answer.status.code(), Some(1));
    assert_eq!(text(&answer.stderr), "there is no pod shop/other (namespace shop has 2)\n");
}

#[test]
fn a_bad_manifest_gives_no_verdict() {
    let folder = folder();
    fs::write(folder.path().join("bad.yaml"), MANIFEST.replace("egress: []", "egres: []")).unwrap();
    let dir = folder.path().to_str().unwrap();
    let ask = ["explain", "--manifests", dir, "--from", "shop/client", "--to", "shop/web"];
    let answer = policyd(&ask);
    assert_eq!(answer.status.code(), Some(1), "{answer:?}");
    assert_eq!(text(&answer.stdout), "");
    let said = text(&answer.stderr);
    assert!(said.contains("bad.yaml: document 3: spec.egres: there is no such field"), "{said}");
    assert!(said.contains("there is no verdict"), "{said}");
}

#[test]
fn errors_alone_make_lint_fail() {
    let folder = folder();
    let file = folder.path().join("shop.yaml");
    let lint = || policyd(&["lint", file.to_str().unwrap()]);
    let answer = lint();
    assert!(answer.status.success());
    let said = text(&answer.stdout);
    assert!(said.starts_with("warning: ") && said.lines().count() == 1, "{said}");
    fs::write(&file, MANIFEST.replace("egress: []", "egress: [{to: [{}]}]")).unwrap();
    let answer = lint();
    assert_eq!(answer.status.code(), Some(1));
    assert!(text(&answer.stdout).contains("error: "), "{answer:?}");
}
