//! Single files and what they say, or what is wrong with them.

use cluster::folder::{Format, Kinds as _, Manifest, Objects, parse};

use super::super::kinds::{Kinds, Object};
use super::{DENY, POD};

fn kinds() -> Kinds<Object> {
    Kinds { node: "node-1".to_owned(), keep: Object::from }
}

fn yaml(text: &str) -> Result<Manifest<Object>, Vec<String>> {
    let (manifest, defects) = parse(Format::Yaml, text.as_bytes(), &kinds());
    let defects: Vec<_> = defects.iter().map(ToString::to_string).collect();
    if defects.is_empty() { Ok(manifest) } else { Err(defects) }
}

fn good(text: &str) -> Manifest<Object> {
    yaml(text).unwrap()
}

/// What is said of a file that is wrong in one way.
fn wrong(text: &str) -> String {
    let mut defects = yaml(text).unwrap_err();
    assert_eq!(defects.len(), 1, "{defects:#?}");
    defects.remove(0)
}

/// The objects of files, and those that are there without.
fn objects(files: &[&Manifest<Object>]) -> Objects<Object> {
    let entries = files.iter().flat_map(|it| &it.objects);
    let mut objects = entries.map(|it| (it.identity.clone(), it.object.clone())).collect();
    kinds().complete(&mut objects);
    objects
}

/// The objects of a file, as `1 Pod shop/web folder/Pod/shop/web`.
fn names(manifest: &Manifest<Object>) -> Vec<String> {
    let names = manifest.objects.iter().map(|entry| {
        let (name, uid) = match &entry.object {
            Object::Pod(it) => (format!("Pod {}", it.name), &it.uid),
            Object::Namespace(it) => (format!("Namespace {}", it.name), &it.uid),
            Object::Policy(it) => (format!("NetworkPolicy {}", it.name), &it.uid),
        };
        assert_eq!(name, format!("{} {}", entry.identity.0, entry.identity.1));
        format!("{} {name} {uid}", entry.document)
    });
    names.collect()
}

#[test]
fn a_file_holds_several_documents() {
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: a}}\n";
    let manifest = good(&format!("---\n{namespace}---\n\n---\n{POD}---\n{DENY}"));
    assert_eq!(
        names(&manifest),
        [
            "1 Namespace shop folder/Namespace/shop",
            "2 Pod shop/web folder/Pod/shop/web",
            "3 NetworkPolicy shop/deny folder/NetworkPolicy/shop/deny",
        ]
    );
}

#[test]
fn pods_are_on_this_node_unless_they_name_one() {
    let Object::Pod(pod) = &good(POD).objects[0].object else { panic!("a pod") };
    assert_eq!(pod.node.as_deref(), Some("node-1"));
    assert_eq!(pod.addresses, ["10.0.0.5".parse().unwrap()].into());
    let elsewhere = POD.replace("spec: {", "spec: {nodeName: node-2, ");
    let Object::Pod(pod) = &good(&elsewhere).objects[0].object else { panic!("a pod") };
    assert_eq!(pod.node.as_deref(), Some("node-2"));
}

#[test]
fn an_object_without_namespace_is_in_default_and_its_own_uid_does_not_count() {
    for absent in ["", "namespace: '', ", "uid: copied, "] {
        let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{{absent}name: a}}\n");
        assert_eq!(names(&good(&text)), ["1 Pod default/a folder/Pod/default/a"]);
    }
}

#[test]
fn lists_of_every_kind_are_read() {
    let untyped = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a}}\n- {apiVersion: v1, kind: Service, metadata: {name: s}}\n";
    let typed = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicyList\nitems:\n- {metadata: {name: p}, spec: {podSelector: {}}}\n";
    let manifest = good(&format!("{untyped}---\n{typed}"));
    assert_eq!(
        names(&manifest),
        [
            "1 Pod default/a folder/Pod/default/a",
            "2 NetworkPolicy default/p folder/NetworkPolicy/default/p",
        ]
    );
    assert_eq!(manifest.others, [(1, "v1 Service".to_owned())]);
    assert_eq!(good("apiVersion: v1\nkind: List\n"), Manifest::default());
}

#[test]
fn a_misspelt_field_of_a_policy_is_told_and_one_of_a_pod_is_not() {
    let text = DENY.replace("podSelector: {}", "ingress: [{ports: [{prot: 80}]}]");
    assert_eq!(
        wrong(&text),
        "document 1: spec.ingress[0].ports[0].prot: there is no such field (is it misspelt?)"
    );
    // A newer Kubernetes may have given pods more fields, and old exports of policies a status.
    good(&POD.replace("spec: {", "spec: {brandNew: 1, "));
    good(&format!("{DENY}status: {{}}\n"));
}

#[test]
fn kinds_that_are_read_may_not_be_misspelt() {
    assert_eq!(
        wrong(&DENY.replace("networking.k8s.io/v1", "extensions/v1beta1")),
        "document 1: extensions/v1beta1 NetworkPolicy is not read; networking.k8s.io/v1 NetworkPolicy is"
    );
    assert_eq!(
        wrong(&DENY.replace("NetworkPolicy", "Networkpolicy")),
        "document 1: networking.k8s.io/v1 Networkpolicy is not read; networking.k8s.io/v1 NetworkPolicy is"
    );
    let other = "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: a}\n";
    assert_eq!(good(other).others, [(1, "projectcalico.org/v3 NetworkPolicy".to_owned())]);
}

#[test]
fn a_namespace_that_an_object_names_is_there() {
    let manifest = good(&format!("{POD}---\n{DENY}"));
    let shop = ("Namespace", "shop".to_owned());
    let named = objects(&[&manifest]);
    assert_eq!(named.len(), 3);
    let Some(Object::Namespace(namespace)) = named.get(&shop) else { panic!("{named:#?}") };
    assert_eq!(namespace.uid, "folder/Namespace/shop");
    let name = namespace.labels.get("kubernetes.io/metadata.name");
    assert_eq!(name.map(String::as_str), Some("shop"));

    let written = good("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {a: b}}\n");
    let named = objects(&[&manifest, &written]);
    assert_eq!(named.len(), 3);
    let Some(Object::Namespace(namespace)) = named.get(&shop) else { panic!("{named:#?}") };
    assert_eq!(namespace.labels.get("a").map(String::as_str), Some("b"));
}
