//! The manifests of `conf`: what kustomize makes, what Helm makes, and what the API server says to it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use lab::cluster::{Cluster, Version};
use lab::{Node, peer, program, workspace};
use serde_json::{Value, json};

use crate::deployed::{PODWIRE, POLICYD, collection, program_of, texts};
use crate::proxied::PROXYD;

/// In `conf/kubernetes/overlays`; the chart has an example of values for each.
const OVERLAYS: [&str; 9] = [
    "network",
    "dual-stack",
    "ipv6",
    "no-masquerade",
    "no-gate",
    "policy-only",
    "policyd",
    "network-proxyd",
    "proxyd-kubeadm",
];

fn conf(path: &str) -> PathBuf {
    workspace().join("conf").join(path)
}

fn output(name: &str, arguments: &[&str]) -> String {
    let mut command = program(peer(name));
    // What the user of this machine has set for himself has no part in it.
    command.env_clear().env("HOME", "/nonexistent").args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{name} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn kustomize(overlay: &str) -> String {
    kustomize_at(&format!("overlays/{overlay}"))
}

fn kustomize_at(folder: &str) -> String {
    let folder = conf("kubernetes").join(folder);
    output("kubectl", &["kustomize", folder.to_str().unwrap()])
}

pub(crate) fn helm(values: &str, options: &[&str]) -> String {
    let (chart, values) =
        (conf("helm/podwire"), conf("helm/podwire/examples").join(format!("{values}.yaml")));
    let mut words = vec!["template", "podwire", chart.to_str().unwrap(), "-n", "kube-system"];
    words.extend(["-f", values.to_str().unwrap()].iter().chain(options));
    output("helm", &words)
}

/// The documents of a text.
pub(crate) fn documents(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        if line == "---" {
            documents.push(String::new());
        } else if let Some(last) = documents.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    let says_something = |it: &String| it.lines().any(|it| !it.is_empty() && !it.starts_with('#'));
    documents.retain(says_something);
    documents
}

pub(crate) fn read(document: &str) -> Value {
    serde_saphyr::from_str(document).unwrap_or_else(|error| panic!("{error}: {document}"))
}

/// What a text says, by kind and name, whichever way it says it.
fn objects(text: &str) -> BTreeMap<String, Value> {
    let named = |document: String| {
        let mut object = read(&document);
        let name = format!("{} {}", object["kind"], object["metadata"]["name"]);
        normalise(&mut object);
        (name, object)
    };
    documents(text).into_iter().map(named).collect()
}

fn normalise(object: &mut Value) {
    if let Some(text) = object.pointer_mut("/data/ip-masq-agent") {
        *text = serde_json::from_str(text.as_str().unwrap()).unwrap();
    }
    if let Some(Value::Object(spec)) = object.pointer_mut("/spec/template/spec") {
        // To have none of them is to have an empty list of them.
        spec.retain(|_, value| !value.is_null() && *value != json!([]));
        // In which order these stand makes no difference.
        if let Some(Value::Array(volumes)) = spec.get_mut("volumes") {
            volumes.sort_by_key(|it| it["name"].to_string());
        }
    }
}

#[test]
fn the_one_file_for_kubectl_is_what_kustomize_makes() {
    let files = [(PODWIRE, "overlays/network"), (POLICYD, "overlays/policyd"), (PROXYD, "proxyd")];
    for (file, folder) in files {
        let text = fs::read_to_string(conf("kubernetes").join(file)).unwrap();
        let (comments, rest) = text.split_at(text.find("apiVersion").unwrap());
        assert!(comments.lines().all(|line| line.starts_with('#')), "{comments}");
        assert_eq!(rest, kustomize_at(folder), "{file}: run scripts/manifests");
    }
}

#[test]
fn every_overlay_is_tested() {
    let folder = fs::read_dir(conf("kubernetes/overlays")).unwrap();
    let names = |it: fs::DirEntry| it.file_name().into_string().unwrap();
    let mut there: Vec<String> = folder.map(|it| names(it.unwrap())).collect();
    there.sort();
    let mut tested = OVERLAYS;
    tested.sort_unstable();
    assert_eq!(there, tested);
}

#[test]
fn helm_makes_what_kustomize_makes() {
    for overlay in OVERLAYS {
        let (kustomized, charted) = (kustomize(overlay), helm(overlay, &["--no-hooks"]));
        let (expected, found) = (objects(&kustomized), objects(&charted));
        let names = |it: &BTreeMap<String, Value>| it.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&expected), "{overlay}");
        for (name, expected) in &expected {
            assert_eq!(&found[name], expected, "{overlay}: {name}");
        }
    }
}

#[test]
fn helm_cleans_nodes_as_the_manifest_does() {
    let text = fs::read_to_string(conf("kubernetes/cleanup.yaml")).unwrap();
    let (expected, mut found) = (objects(&text), objects(&helm("network", &[])));
    found.retain(|_, object| {
        let metadata = object["metadata"].as_object_mut().unwrap();
        metadata.remove("annotations").is_some() && object["kind"] == "DaemonSet"
    });
    assert_eq!(found, expected);
    let without = helm("network", &["--set", "cleanup.enabled=false"]);
    assert!(!without.contains("helm.sh/hook"));
}

#[test]
fn values_that_cannot_be_are_refused() {
    let chart = conf("helm/podwire");
    for (values, words) in [
        ("family=ipv5", "family"),
        ("chain.enabled=true", "nodeNetwork.enabled=false"),
        ("chain.enabled=true,nodeNetwork.enabled=false,install=false", "leave out install=false"),
        ("chain.file=/etc/cni/net.d/a.conflist", "file"),
        ("masquerade.enable=true", "enable"),
        ("imagePullSecrets={a}", "imagePullSecrets"),
        ("cni.confName=10-podwire.conf", "confName"),
        ("nodeNetwork.mtu=575", "mtu"),
        ("family=null", "family"),
        ("proxyd.apiServer.host=https://x", "host"),
    ] {
        let mut command = program(peer("helm"));
        command.env_clear().env("HOME", "/nonexistent");
        command.args(["template", "podwire"]).arg(&chart).args(["--set", values]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{values}: {said}");
    }
}

/// Each program is given one word more, which it cannot know: that, and nothing else, it must complain of.
#[test]
fn the_programs_take_every_rendered_command_line() {
    const UNKNOWN: &str = "--nobody-knows-this";
    let folders =
        "cni.confDir=/var/lib/rancher/k3s/agent/etc/cni/net.d,cni.binDir=/var/lib/cni/bin";
    let bridged = "nodeNetwork.plugin=bridge,nodeNetwork.mtu=1400,cni.confName=05-podwire.conflist,\
        nodeNetwork.chained={portmap,bandwidth},extraArgs={--deny=reject,--log-denied},port=9100,gate=false";
    let proxied = "proxyd.enabled=true,proxyd.apiServer.host=fd00::1,proxyd.port=9098,\
        proxyd.clusterCIDRs={10.244.0.0/16,fd00:10:244::/56},proxyd.serviceCIDRs={10.96.0.0/16},\
        proxyd.extraArgs={--masquerade-all}";
    let with_slash = "cni.confDir=/etc/cni/net.d/,nodeNetwork.mtu=576,forwarding=false";
    let mut lines = Vec::new();
    let small = "nodeNetwork.mtu=0,masquerade.enabled=false";
    for values in ["", folders, bridged, with_slash, small, proxied] {
        for overlay in OVERLAYS {
            let text = helm(overlay, &["--set", values]);
            let objects: Vec<Value> = documents(&text).iter().map(|it| read(it)).collect();
            for container in objects.iter().flat_map(containers) {
                let arguments = texts(&container["args"]);
                let mut command = program(program_of(container));
                let output = command.args(&arguments).arg(UNKNOWN).output().unwrap();
                let said = String::from_utf8_lossy(&output.stderr);
                let first = said.lines().next().unwrap_or_default();
                assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
                assert!(first.contains(UNKNOWN), "{arguments:?}: {said}");
                lines.push((values, arguments.join(" ")));
            }
        }
    }
    // The values get through to whom they are for.
    for (values, command, part) in [
        (folders, "cleanup --all", "--cni-conf-dir=/var/lib/rancher/k3s/agent/etc/cni/net.d"),
        (folders, "unchain", "--from-all=/var/lib/rancher/k3s/agent/etc/cni/net.d"),
        (folders, "uninstall", "--bin-dir=/var/lib/cni/bin"),
        (bridged, "cleanup --all", "--cni-conf-name=05-podwire.conflist"),
        (with_slash, "chain", "--into=/etc/cni/net.d/"),
        (proxied, "--proc-sys-net", "--cluster-cidr=10.244.0.0/16,fd00:10:244::/56"),
        (proxied, "--proc-sys-net", "--service-cidr=10.96.0.0/16 --masquerade-all"),
        (proxied, "--proc-sys-net", "--metrics-bind-address=9098"),
        (proxied, "uninstall", "--daemon-set=podwire-proxyd"),
        ("", "--proc-sys-net", "--config=/var/lib/kube-proxy/config.conf"),
    ] {
        let mut of_values = lines.iter().filter(|(of, _)| *of == values);
        let has_both = of_values.any(|(_, line)| line.contains(command) && line.contains(part));
        assert!(has_both, "{command} without {part}: {lines:?}");
    }
}

#[test]
fn the_api_server_takes_them_all() {
    let node = Node::quick();
    let cluster = Cluster::start(&node, Version::New);
    let options = "image.repository=registry.example/podwire,image.pullPolicy=Always,port=9100,\
        nodeNetwork.plugin=bridge,nodeNetwork.chained={portmap},nodeNetwork.mtu=1400,\
        cni.confDir=/var/lib/cni/net.d,cni.confName=05-podwire.conflist,cni.binDir=/usr/libexec/cni,\
        image.pullSecrets={registry},extraArgs={--deny=reject},proxyd.enabled=true,proxyd.apiServer.host=a.example";
    let mut texts: Vec<String> = OVERLAYS.iter().map(|it| kustomize(it)).collect();
    texts.extend(OVERLAYS.iter().map(|it| helm(it, &[])));
    texts.push(helm("dual-stack", &["--set", options]));
    for file in ["cleanup.yaml", "proxyd-cleanup.yaml"] {
        texts.push(fs::read_to_string(conf("kubernetes").join(file)).unwrap());
    }
    for document in texts.iter().flat_map(|text| documents(text)) {
        let made = cluster.create_yaml(&format!("{}?dryRun=All", collection(&document)), &document);
        let images = containers(&made).map(|it| it["image"].as_str().unwrap().to_owned());
        for image in images {
            assert!(image.ends_with("podwire:0.1.0"), "{image}");
        }
        for container in containers(&made) {
            let limits = &container["resources"]["limits"]["memory"];
            assert!(limits.is_string(), "{} has no limit of memory", container["name"]);
        }
    }
}

fn containers(object: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["initContainers", "containers"];
    let lists = lists.map(|it| object.pointer(&format!("/spec/template/spec/{it}")));
    lists.into_iter().flatten().flat_map(|it| it.as_array().into_iter().flatten())
}
