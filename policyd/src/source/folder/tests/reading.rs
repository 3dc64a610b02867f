//! Single files and what they say, or what is wrong with them.

use super::super::contents::Contents;
use super::super::manifest::{Format, Manifest, Object, parse};
use super::{DENY, POD};
use crate::source::{Change, Event};

use std::path::Path;

fn yaml(text: &str) -> Result<Manifest, Vec<String>> {
    let defects = |defects: Vec<_>| defects.iter().map(ToString::to_string).collect();
    parse(Format::Yaml, text.as_bytes(), "node-1").map_err(defects)
}

fn good(text: &str) -> Manifest {
    yaml(text).unwrap()
}

/// What is said of a file that is wrong in one way.
fn wrong(text: &str) -> String {
    let mut defects = yaml(text).unwrap_err();
    assert_eq!(defects.len(), 1, "{defects:#?}");
    defects.remove(0)
}

/// The objects of a file, as `1 Pod shop/web folder/Pod/shop/web`.
fn names(manifest: &Manifest) -> Vec<String> {
    let name = |(document, object): &(usize, Object)| match object {
        Object::Pod(it) => format!("{document} Pod {} {}", it.name, it.uid),
        Object::Namespace(it) => format!("{document} Namespace {} {}", it.name, it.uid),
        Object::Policy(it) => format!("{document} NetworkPolicy {} {}", it.name, it.uid),
    };
    manifest.objects.iter().map(name).collect()
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
    let [(_, Object::Pod(pod))] = &good(POD).objects[..] else { panic!("one pod") };
    assert_eq!(pod.node.as_deref(), Some("node-1"));
    assert_eq!(pod.addresses, ["10.0.0.5".parse().unwrap()].into());
    let elsewhere = POD.replace("spec: {", "spec: {nodeName: node-2, ");
    let [(_, Object::Pod(pod))] = &good(&elsewhere).objects[..] else { panic!("one pod") };
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
fn json_is_read_as_json() {
    let text = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}
        {"apiVersion":"v1","kind":"Pod","metadata":{"name":"b"}}"#;
    let manifest = parse(Format::Json, text.as_bytes(), "node-1").unwrap();
    assert_eq!(
        names(&manifest),
        ["1 Pod default/a folder/Pod/default/a", "2 Pod default/b folder/Pod/default/b"]
    );
    let defects = parse(Format::Json, b"{\"apiVersion\": v1}", "node-1").unwrap_err();
    assert_eq!(defects[0].to_string(), "document 1: expected value at line 1 column 16");
}

#[test]
fn only_manifests_are_read() {
    for (name, wanted) in [
        ("a.yaml", Some(Format::Yaml)),
        ("a.yml", Some(Format::Yaml)),
        ("a.json", Some(Format::Json)),
        (".a.yaml", None),
        ("a.yaml~", None),
        ("a.yaml.swp", None),
        ("..data", None),
        ("README", None),
    ] {
        assert_eq!(Format::of(Path::new(name)), wanted, "{name}");
    }
}

#[test]
fn broken_yaml_is_told_with_its_document_and_line() {
    let text = wrong(&format!("{POD}---\nspec: [\n"));
    assert!(text.starts_with("document 2: ") && text.contains("line"), "{text}");
    let text = wrong("kind: Pod\nkind: Pod\n");
    assert!(text.contains("duplicate"), "{text}");
}

#[test]
fn a_wrong_type_is_told_with_its_path() {
    let text = DENY.replace("podSelector: {}", "podSelector: {matchLabels: {app: 5}}");
    assert_eq!(
        wrong(&format!("{POD}---\n{text}")),
        "document 2: spec.podSelector.matchLabels.app: invalid type: integer `5`, expected a string"
    );
    let text = DENY.replace("podSelector: {}", "ingress: [{from: {}}]");
    let text = wrong(&text);
    assert!(text.starts_with("document 1: spec.ingress[0].from: invalid type: map"), "{text}");
    let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a}, spec: 7}\n";
    let text = wrong(list);
    assert!(text.starts_with("document 1: items[0].spec: invalid type: integer `7`"), "{text}");
    assert_eq!(
        wrong("apiVersion: v1\nkind: List\nitems: 5\n"),
        "document 1: items: expected a sequence"
    );
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
fn what_is_no_object_is_told() {
    let missing = "document 1: no object of Kubernetes: apiVersion and kind are needed";
    for text in ["5\n", "- a\n", "kind: Pod\n", "apiVersion: v1\nmetadata: {name: a}\n"] {
        assert_eq!(wrong(text), missing, "{text}");
    }
    assert_eq!(
        wrong("apiVersion: v1\nkind: Pod\nmetadata: {generateName: a-}\n"),
        "document 1: metadata.name: an object needs a name"
    );
}

#[test]
fn all_defects_of_a_file_are_told_up_to_ten() {
    let text = "apiVersion: v1\nkind: Pod\n---\n".repeat(20);
    let defects = yaml(&text).unwrap_err();
    assert_eq!(defects.len(), 10);
    assert!(defects[9].starts_with("document 10: "), "{}", defects[9]);
}

#[test]
fn aliases_cannot_make_a_small_file_large() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let uses = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{uses}]\n"));
    }
    let text = wrong(&bomb);
    assert!(text.starts_with("document 1: ") && text.contains("alias"), "{text}");
    let deep = wrong(&format!("a: {}\n", "[".repeat(10_000)));
    assert!(deep.starts_with("document 1: "), "{deep}");
    let nested = |depth| {
        let open = r#"{"apiVersion": "v1", "kind": "List", "items": ["#.repeat(depth);
        format!("{open}{}", "]}".repeat(depth))
    };
    good(&nested(4));
    assert_eq!(
        wrong(&nested(5)),
        "document 1: items[0].items[0].items[0].items[0]: lists are nested too deeply"
    );
}

#[test]
fn of_objects_of_one_name_the_first_counts() {
    let (first, second) = (good(DENY), good(&DENY.replace("{podSelector: {}}", "{ingress: [{}]}")));
    let both = good(&format!("{DENY}---\n{DENY}"));
    let files = [(Path::new("a.yaml"), &first), (Path::new("b.yaml"), &second)];
    let (contents, reports) = Contents::of(files, None);
    assert_eq!(contents, Contents::of([(Path::new("a.yaml"), &first)], None).0);
    assert_eq!(
        reports[0].to_string(),
        "NetworkPolicy shop/deny: a.yaml document 1 and b.yaml document 1 have it; the first one counts"
    );
    let (_, reports) = Contents::of([(Path::new("a.yaml"), &both)], None);
    assert_eq!(
        reports[0].to_string(),
        "NetworkPolicy shop/deny: a.yaml document 1 and a.yaml document 2 have it; the first one counts"
    );
}

#[test]
fn a_namespace_that_an_object_names_is_there() {
    let manifest = good(&format!("{POD}---\n{DENY}"));
    let (contents, _) = Contents::of([(Path::new("a.yaml"), &manifest)], None);
    let [Event::Namespaces(Change::Listed(namespaces)), ..] = contents.listed() else {
        panic!("namespaces come first")
    };
    let [namespace] = &namespaces[..] else { panic!("{namespaces:#?}") };
    assert_eq!(namespace.uid, "folder/Namespace/shop");
    let name = namespace.labels.get("kubernetes.io/metadata.name");
    assert_eq!(name.map(String::as_str), Some("shop"));

    let written = good("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {a: b}}\n");
    let files = [(Path::new("a.yaml"), &manifest), (Path::new("b.yaml"), &written)];
    let [Event::Namespaces(Change::Listed(namespaces)), ..] = Contents::of(files, None).0.listed()
    else {
        panic!("namespaces come first")
    };
    assert_eq!(namespaces.len(), 1);
    assert_eq!(namespaces[0].labels.get("a").map(String::as_str), Some("b"));
}
