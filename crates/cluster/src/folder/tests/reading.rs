//! Single files and what they say, or what is wrong with them.

use std::path::Path;

use super::super::contents::Contents;
use super::super::{Format, Manifest, parse};
use super::{DENY, Kept, POD, Sample};

fn read(format: Format, text: &str) -> Result<Manifest<Kept>, Vec<String>> {
    let (manifest, defects) = parse(format, text.as_bytes(), &Sample);
    let defects: Vec<_> = defects.iter().map(ToString::to_string).collect();
    if defects.is_empty() { Ok(manifest) } else { Err(defects) }
}

fn yaml(text: &str) -> Result<Manifest<Kept>, Vec<String>> {
    read(Format::Yaml, text)
}

fn good(text: &str) -> Manifest<Kept> {
    yaml(text).unwrap()
}

/// What is said of a file that is wrong in one way.
fn wrong(text: &str) -> String {
    let mut defects = yaml(text).unwrap_err();
    assert_eq!(defects.len(), 1, "{defects:#?}");
    defects.remove(0)
}

/// The objects of a file, as `1 Pod shop/web`, and after a colon their path where they are in a list.
fn names(manifest: &Manifest<Kept>) -> Vec<String> {
    let names = manifest.objects.iter().map(|it| {
        let (kind, name) = &it.identity;
        assert_eq!(it.object.name, *name);
        let path = if it.path.is_empty() { String::new() } else { format!(": {}", it.path) };
        format!("{} {kind} {name}{path}", it.document)
    });
    names.collect()
}

#[test]
fn a_file_holds_several_documents() {
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: a}}\n";
    let manifest = good(&format!("---\n{namespace}---\n\n---\n{POD}---\n{DENY}"));
    assert_eq!(
        names(&manifest),
        ["1 Namespace shop", "2 Pod shop/web", "3 NetworkPolicy shop/deny"]
    );
    assert_eq!(manifest.objects[2].object.spec, serde_json::json!({"podSelector": {}}));
}

#[test]
fn an_object_without_namespace_is_in_default() {
    for absent in ["", "namespace: '', ", "namespace: null, "] {
        let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{{absent}name: a}}\n");
        assert_eq!(names(&good(&text)), ["1 Pod default/a"]);
    }
}

#[test]
fn lists_of_every_kind_are_read() {
    let untyped = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a}}\n- {apiVersion: v1, kind: Service, metadata: {name: s}}\n";
    let typed = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicyList\nitems:\n- {metadata: {name: p}, spec: {podSelector: {}}}\n";
    let manifest = good(&format!("{untyped}---\n{typed}"));
    assert_eq!(
        names(&manifest),
        ["1 Pod default/a: items[0]", "2 NetworkPolicy default/p: items[0]",]
    );
    assert_eq!(manifest.others, [(1, "v1 Service".to_owned())]);
    assert_eq!(good("apiVersion: v1\nkind: List\n"), Manifest::default());
}

#[test]
fn json_is_read_as_json() {
    let text = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}
        {"apiVersion":"v1","kind":"Pod","metadata":{"name":"b"}}"#;
    let manifest = read(Format::Json, text).unwrap();
    assert_eq!(names(&manifest), ["1 Pod default/a", "2 Pod default/b"]);
    let defects = read(Format::Json, "{\"apiVersion\": v1}").unwrap_err();
    assert_eq!(defects[0], "document 1: expected value at line 1 column 16");
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
fn fields_that_are_not_known_are_refused_where_a_kind_is_strict() {
    let text = DENY.replace("podSelector: {}", "ingress: [{ports: [{prot: 80}]}]");
    assert_eq!(
        wrong(&text),
        "document 1: spec.ingress[0].ports[0].prot: there is no such field (is it misspelt?)"
    );
    good(&POD.replace("spec: {", "spec: {brandNew: 1, "));
    good(&format!("{DENY}status: {{}}\n"));
}

#[test]
fn kinds_that_are_read_may_not_be_misspelt() {
    assert_eq!(
        wrong(&DENY.replace("networking.k8s.io/v1", "networking.k8s.io/v1beta1")),
        "document 1: networking.k8s.io/v1beta1 NetworkPolicy is not read; networking.k8s.io/v1 NetworkPolicy is"
    );
    assert_eq!(
        wrong("apiVersion: v1\nkind: pod\nmetadata: {name: a}\n"),
        "document 1: v1 pod is not read; v1 Pod is"
    );
    let other = "apiVersion: metrics.k8s.io/v1\nkind: Pod\nmetadata: {name: a}\n";
    assert_eq!(good(other).others, [(1, "metrics.k8s.io/v1 Pod".to_owned())]);
}

#[test]
fn of_objects_of_one_name_the_first_counts() {
    let other = DENY.replace("{podSelector: {}}", "{ingress: [{}]}");
    let (first, second) = (good(DENY), good(&other));
    let files = [(Path::new("a.yaml"), &first), (Path::new("b.yaml"), &second)];
    let (contents, reports) = Contents::of(files, &Sample, None);
    let alone = Contents::of([(Path::new("a.yaml"), &first)], &Sample, None).0;
    assert_eq!(contents, alone);
    assert_eq!(
        reports[0].to_string(),
        "NetworkPolicy shop/deny: a.yaml document 1 and b.yaml document 1 have it; the first one counts"
    );
    let both = good(&format!("{DENY}---\n{other}"));
    let (contents, reports) = Contents::of([(Path::new("a.yaml"), &both)], &Sample, None);
    assert_eq!(contents, alone);
    assert_eq!(
        reports[0].to_string(),
        "NetworkPolicy shop/deny: a.yaml document 1 and a.yaml document 2 have it; the first one counts"
    );
    let item = |spec| format!("- {{metadata: {{namespace: shop, name: deny}}, spec: {spec}}}\n");
    let items = [item("{podSelector: {}}"), item("{ingress: [{}]}")].concat();
    let list =
        format!("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicyList\nitems:\n{items}");
    let (contents, reports) = Contents::of([(Path::new("a.yaml"), &good(&list))], &Sample, None);
    assert_eq!(contents, alone);
    assert_eq!(reports.len(), 1);
}
