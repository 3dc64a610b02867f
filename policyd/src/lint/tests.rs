use std::fs;

use insta::assert_snapshot;
use serde_json::json;

use super::*;

/// What is said of these files, by their names in a folder of their own.
fn findings(files: &[(&str, &str)]) -> Vec<Finding> {
    let folder = tempfile::tempdir().unwrap();
    let paths: Vec<_> = files.iter().map(|(name, _)| folder.path().join(name)).collect();
    for (path, (_, text)) in paths.iter().zip(files) {
        fs::write(path, text).unwrap();
    }
    let mut findings = lint(&paths);
    for finding in &mut findings {
        finding.file = finding.file.strip_prefix(folder.path()).unwrap().to_owned();
    }
    findings
}

fn text(findings: &[Finding]) -> String {
    findings.iter().map(|it| format!("{it}\n")).collect()
}

/// What is said of a policy of this spec.
fn of_spec(spec: &str) -> String {
    of_documents(&[&policy("web", spec)])
}

fn of_documents(documents: &[&str]) -> String {
    text(&findings(&[("f.yaml", &documents.join("---\n"))]))
}

fn policy(name: &str, spec: &str) -> String {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n{spec}"
    )
}

fn pod(namespace: &str, labels: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: {namespace}, labels: {labels}}}\n\
         spec: {{containers: [{{name: c, ports: [{{name: http, containerPort: 80}}]}}]}}\n"
    )
}

fn namespace(name: &str, labels: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {labels}}}\n")
}

#[test]
fn a_clear_policy_has_no_findings() {
    assert_eq!(
        of_spec(
            "podSelector: {matchLabels: {app: web}}
policyTypes: [Ingress, Egress]
ingress:
- from:
  - namespaceSelector: {matchLabels: {ns: x}}
    podSelector: {matchLabels: {app: a}}
  - podSelector: {matchLabels: {app: b}}
  - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.2.0.0/16]}
  ports: [{port: 80, protocol: TCP}, {port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
egress:
- to: [{namespaceSelector: {}}]
  ports: [{port: 53, protocol: UDP}]
- ports: [{port: 443, protocol: TCP}]
"
        ),
        ""
    );
}

#[test]
fn two_entries_where_one_may_have_been_meant() {
    assert_snapshot!(of_spec(
        "podSelector: {}
ingress:
- from:
  - namespaceSelector: {matchLabels: {ns: x}}
  - podSelector: {matchLabels: {app: a}}
- from:
  - podSelector: {matchLabels: {app: a}}
  - namespaceSelector: {}
- from:
  - podSelector: {}
  - namespaceSelector: {matchLabels: {ns: x}}
"
    ));
}

#[test]
fn entries_of_one_kind_or_apart_are_no_confusion() {
    assert_eq!(
        of_spec(
            "podSelector: {}
ingress:
- from:
  - namespaceSelector: {matchLabels: {ns: x}}
  - namespaceSelector: {matchLabels: {ns: z}}
  - ipBlock: {cidr: 10.0.0.0/8}
  - podSelector: {matchLabels: {app: a}}
  - podSelector: {matchLabels: {app: b}}
  - namespaceSelector: {matchLabels: {ns: x}}
    podSelector: {matchLabels: {app: a}}
"
        ),
        ""
    );
}

#[test]
fn lists_that_are_there_and_empty_allow_everything() {
    assert_snapshot!(of_spec("podSelector: {}\ningress: [{from: [], ports: []}]\n"));
}

#[test]
fn ports_without_protocol() {
    assert_snapshot!(of_spec(
        "podSelector: {}
ingress:
- ports: [{port: 80}, {port: http}, {}, {port: 443, protocol: TCP}]
- ports: [{port: 53}]
"
    ));
}

#[test]
fn dns_by_tcp_is_fine_where_another_rule_has_udp() {
    let said = of_spec(
        "podSelector: {}
ingress:
- ports: [{port: 53, protocol: TCP}]
- ports: [{port: 50, endPort: 60, protocol: UDP}]
",
    );
    assert_eq!(said, "");
}

#[test]
fn exceptions_that_leave_out_nothing_or_everything() {
    assert_snapshot!(of_spec(
        "podSelector: {}
ingress:
- from:
  - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.1.2.0/24, 10.1.0.0/16, 10.3.0.0/16]}
- from:
  - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.1.0/24, 10.9.0.0/16]}
  - ipBlock: {cidr: 10.1.0.0/16}
  - ipBlock: {cidr: 10.9.0.0/16, except: [10.9.1.0/24]}
- from:
  - ipBlock: {cidr: 0.0.0.0/0, except: [0.0.0.0/1, 128.0.0.0/2, 192.0.0.0/2]}
  - ipBlock: {cidr: '::/0', except: ['::/1', '8000::/1']}
  - ipBlock: {cidr: 192.0.2.0/31, except: [192.0.2.0/32]}
"
    ));
}

#[test]
fn directions_that_are_not_as_they_seem() {
    let said = [
        "podSelector: {}\negress: []\n",
        "podSelector: {}\negress: [{}]\n",
        "podSelector: {}\npolicyTypes: [Ingress]\negress: [{}]\n",
        "podSelector: {}\npolicyTypes: [Egress]\ningress: [{ports: [{port: 1}]}]\negress: []\n",
    ]
    .map(of_spec);
    assert_snapshot!(said.join("\n"));
}

#[test]
fn egress_without_dns() {
    let egress =
        "podSelector: {}\npolicyTypes: [Egress]\negress: [{ports: [{port: 443, protocol: TCP}]}]\n";
    assert_snapshot!(of_spec(egress));
    let dns =
        "podSelector: {}\npolicyTypes: [Egress]\negress: [{ports: [{port: 53, protocol: UDP}]}]\n";
    assert_eq!(of_documents(&[&policy("a", egress), &policy("b", dns)]), "");
    for fine in [
        "podSelector: {}\npolicyTypes: [Egress]\n",
        "podSelector: {}\npolicyTypes: [Egress]\negress: [{to: [{podSelector: {}}]}]\n",
        "podSelector: {}\npolicyTypes: [Egress]\negress: [{to: [{ipBlock: {cidr: 1.0.0.0/8}}], ports: [{port: 1, protocol: TCP}]}]\n",
    ] {
        assert_eq!(of_spec(fine), "", "{fine}");
    }
}

#[test]
fn selectors_that_select_none_of_the_given_pods() {
    let spec = "podSelector: {matchLabels: {app: wbe}}
ingress:
- from:
  - podSelector: {matchLabels: {app: web}}
  - podSelector: {matchLabels: {app: db}}
  - namespaceSelector: {matchLabels: {ns: x}}
    podSelector: {matchLabels: {app: web}}
  - namespaceSelector: {matchLabels: {ns: none}}
  - namespaceSelector: {matchLabels: {ns: x}}
    podSelector: {matchLabels: {app: db}}
";
    let documents = [
        policy("web", spec),
        pod("shop", "{app: web}"),
        pod("x", "{app: web}"),
        namespace("x", "{ns: x}"),
        namespace("shop", "{ns: shop}"),
    ];
    let said = of_documents(&documents.each_ref().map(String::as_str));
    assert_snapshot!(said);
    // Nothing is known of pods where none is given.
    assert_eq!(of_spec(spec), "");
}

#[test]
fn names_of_ports_that_no_given_pod_has() {
    let spec = "podSelector: {matchLabels: {app: web}}
policyTypes: [Ingress, Egress]
ingress: [{ports: [{port: http, protocol: TCP}, {port: https, protocol: TCP}]}]
egress: [{ports: [{port: http, protocol: UDP}, {port: http, protocol: TCP}]}]
";
    let said = of_documents(&[&policy("web", spec), &pod("shop", "{app: web}")]);
    assert_snapshot!(said);
}

#[test]
fn policies_for_pods_of_the_nodes_network() {
    let on_host = pod("shop", "{app: web}").replace("spec: {", "spec: {hostNetwork: true, ");
    let said =
        of_documents(&[&policy("web", "podSelector: {matchLabels: {app: web}}\n"), &on_host]);
    assert_snapshot!(said);
}

#[test]
fn what_is_wrong_is_an_error_with_its_place() {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"},
            "spec": {"podSelector": {}, "ingress": [{"from": [{}]}, {"ports": [{"port": 0}]}]}},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "status": {"podIP": "x"}},
    ]});
    let yaml = format!(
        "{}---\n{}---\n{}",
        policy("a", "podSelector: {}\ningress: [{form: []}]\n"),
        policy("b", "podSelector: {}\ningress: [{from: []}]\n"),
        "kind: x\n",
    );
    let found = findings(&[("z.json", &list.to_string()), ("a.yaml", &yaml), ("b.yaml", "a: [\n")]);
    assert_snapshot!(text(&found));
}

#[test]
fn a_file_that_is_not_there_is_an_error() {
    let found = lint(&["/nonexistent/f.yaml".into()]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].severity, Severity::Error);
    let text = found[0].to_string();
    assert!(text.starts_with("error: /nonexistent/f.yaml: cannot be read: No such file"), "{text}");
    assert_eq!(json!(found[0])["severity"], "error");
}

#[test]
fn who_is_written_twice_is_told() {
    let spec = "podSelector: {matchLabels: {app: web}}\npolicyTypes: [Ingress]";
    let (web, other) = (policy("web", spec), policy("other", spec));
    let pod = pod("shop", "{app: web}");
    let files = [("a.yaml", [&*pod, &*web, &*other].join("---\n")), ("b.yaml", web.clone())];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let told = text(&findings(&files));
    let twice: Vec<_> = told.lines().filter(|it| it.contains("of this name")).collect();
    let [only] = twice.as_slice() else { panic!("{told}") };
    let begin = "warning: b.yaml document 1: NetworkPolicy shop/web: metadata.name: ";
    assert!(only.starts_with(begin) && only.contains("a.yaml document 2 has"), "{only}");
}
