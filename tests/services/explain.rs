//! `proxyd explain`: what becomes of a connection, by the objects and by the kernel, and what does become of it.

use std::fs;

use lab::{program, proxyd};
use serde_json::{Value, json};

use crate::by_both;
use crate::client::{Outcome, connect, must_reach};
use crate::daemon::{Folder, service, slice, wait_ready};
use crate::objects::{HERE, THERE};
use crate::site::Site;

by_both! {
    what_is_told_is_what_happens
}

/// What `proxyd OPTIONS explain MORE` says of the folder, and its exit code.
fn ask(site: &Site, folder: &Folder, more: &[&str]) -> (i32, String, String) {
    let address = site.address("node").to_string();
    let (pods, services) = if site.is_ipv4 {
        ("10.1.0.0/16", "10.96.0.0/16")
    } else {
        ("fd00:1::/64", "fd00:96::/112")
    };
    let manifests = folder.manifests();
    let mut command = program(proxyd());
    // By netlink alone.
    command.env("PATH", "/nowhere");
    command.args(["--node-name", HERE, "--node-address", &address, "--cluster-cidr", pods]);
    command.args(["--service-cidr", services]).arg("--manifests").arg(manifests);
    let ended = site.node.run({
        command.arg("explain").args(more);
        command
    });
    (ended.status.code().expect("it ends by itself"), ended.stdout, ended.stderr)
}

fn answer(site: &Site, folder: &Folder, more: &[&str]) -> (i32, Value) {
    let arguments = [&["--live", "--output", "json"], more].concat();
    let (code, text, complaint) = ask(site, folder, &arguments);
    assert_eq!(complaint, "", "{text}");
    (code, serde_json::from_str(&text).expect("it is JSON"))
}

fn what_is_told_is_what_happens(is_ipv4: bool) {
    let mut site = Site::new(is_ipv4);
    site.pods(["a", "b"]);
    let folder = Folder::new();
    let mut object = service(&site);
    object["spec"]["type"] = json!("NodePort");
    object["spec"]["externalTrafficPolicy"] = json!("Local");
    folder.write("service.json", &object);
    let mut far = slice(&site, &["a"]);
    far["endpoints"][0]["nodeName"] = json!(THERE);
    folder.write("slice.json", &far);
    let services = if is_ipv4 { "10.96.0.0/16" } else { "fd00:96::/112" };
    let mut daemon = folder.start_with(&site, &["--service-cidr", services]);
    wait_ready(&site, &mut daemon);
    // Without counters.
    let tables = || site.node.sh("nft --stateless list ruleset");
    let before = tables();
    let [inside, node_port, none, wrong] =
        [("service", 80), ("node", 30080), ("nobody", 80), ("service", 81)]
            .map(|(of, port)| site.at(of, port));
    let [b, world] = ["b", "world"].map(|it| site.address(it).to_string());
    for (to, from, wanted) in [
        (inside, &b, "led"),
        (node_port, &b, "led"),
        (node_port, &world, "dropped"),
        (none, &b, "dropped"),
        (wrong, &b, "refused"),
    ] {
        let (code, told) = answer(&site, &folder, &["--from", from, &to.to_string()]);
        assert_eq!((code, &told["outcome"]), (0, &json!(wanted)), "{told}");
        assert_eq!(told["live"]["differences"], json!([]), "{told}");
        let client = if *from == b { site.pod("b") } else { site.world() };
        match wanted {
            "led" => {
                let (name, seen) = must_reach(client, to);
                assert_eq!((name.as_str(), seen), ("a", site.address("b")));
                assert_eq!(told["ways"][0]["isMasqueraded"], false, "{told}");
                let endpoint = site.at("a", 8080).to_string();
                assert_eq!(told["endpoints"][0]["address"], endpoint, "{told}");
                assert_eq!(told["endpoints"][0]["node"], THERE, "{told}");
            }
            "dropped" => assert_eq!(connect(client, to), Outcome::Silence, "{told}"),
            _ => assert_eq!(connect(client, to), Outcome::Refused, "{told}"),
        }
    }
    let (code, text, _) = ask(&site, &folder, &["--live", &node_port.to_string()]);
    assert_eq!(code, 0, "{text}");
    let head = format!("anybody to {node_port}/TCP: it depends on who connects\n");
    assert!(text.starts_with(&head), "{text}");
    assert!(text.contains("\n  from outside: dropped: only other nodes have endpoints, and externalTrafficPolicy is Local\n"), "{text}");
    assert!(text.contains("\nkernel of here: holds exactly this ("), "{text}");
    // It was only looked at.
    assert!(tables() == before, "{before}");
}

#[test]
fn where_the_kernel_differs_is_told() {
    let mut site = Site::new(true);
    site.pods(["a", "b"]);
    let folder = Folder::new();
    let mut object = service(&site);
    object["spec"]["sessionAffinity"] = json!("ClientIP");
    folder.write("service.json", &object);
    folder.write("slice.json", &slice(&site, &["a"]));
    let mut daemon = folder.start_with(&site, &["--service-cidr", "10.96.0.0/16"]);
    wait_ready(&site, &mut daemon);
    let to = site.at("service", 80);
    must_reach(site.pod("b"), to);
    let from = site.address("b").to_string();
    let ask = |more: &[&str]| {
        answer(&site, &folder, &[&["--from", &from, "10.96.0.1:80"], more].concat())
    };
    let (code, told) = ask(&[]);
    assert_eq!(code, 0, "{told}");
    // Where the client was last is told as well.
    let remembered = format!("the kernel remembers that it was led to {}", site.at("a", 8080));
    assert_eq!(told["live"]["notes"], json!([remembered]), "{told}");
    // Nobody puts it right.
    daemon.kill();
    site.node.sh("nft flush chain ip podwire-proxy look-up");
    folder.write("slice.json", &slice(&site, &["b"]));
    let (code, told) = ask(&[]);
    assert_eq!(code, 3, "{told}");
    let differences = told["live"]["differences"].as_array().expect("a list");
    let is_told = |place: &str, found: &str| {
        let has = |it: &Value, key: &str, text: &str| {
            it[key].as_str().is_some_and(|it| it.contains(text))
        };
        differences.iter().any(|it| has(it, "place", place) && has(it, "found", found))
    };
    let a = site.at("a", 8080).to_string();
    assert!(is_told(&format!("connections from {from}"), &format!("it is led to {a}")), "{told}");
    assert!(is_told("endpoints of ip podwire-proxy: ", "10.1.0.97 . 8080"), "{told}");
    assert!(is_told("chain look-up of ip podwire-proxy", "it lacks "), "{told}");
    site.node.sh(&format!("{} cleanup", proxyd().display()));
    let (code, told) = ask(&[]);
    assert_eq!(
        (code, told["live"]["differences"].as_array().map(Vec::len)),
        (3, Some(1)),
        "{told}"
    );
}

#[test]
fn where_nobody_knows_there_is_no_answer() {
    let site = Site::new(true);
    let folder = Folder::new();
    folder.write("service.json", &service(&site));
    let told = |more: &[&str]| {
        let (code, text, complaint) = ask(&site, &folder, more);
        assert_eq!(text, "");
        (code, complaint)
    };
    let (code, complaint) = told(&["--from", "fd00::1", "10.96.0.1:80"]);
    assert_eq!(
        (code, complaint.as_str()),
        (1, "fd00::1 and 10.96.0.1 are of different families\n")
    );
    let (code, complaint) = told(&["10.96.0.1"]);
    assert!(code == 2 && complaint.contains("\"10.96.0.1\" is no address and port"), "{complaint}");
    fs::write(folder.manifests().join("bad.json"), "{").expect("a file");
    let (code, complaint) = told(&["10.96.0.1:80"]);
    assert!(
        code == 1
            && complaint
                .ends_with("there is no answer, as nobody knows what all manifests should say\n"),
        "{complaint}"
    );
}
