//! Objects that are written more than once.

use std::collections::BTreeMap;

use super::{Finding, Located, Severity};

pub(super) fn check(objects: &[Located]) -> Vec<Finding> {
    let mut first = BTreeMap::<_, &Located>::new();
    let mut findings = Vec::new();
    for located in objects {
        let Some(kept) = first.get(&located.identity) else {
            first.insert(&located.identity, located);
            continue;
        };
        let (kind, name) = &located.identity;
        let text = format!(
            "{} document {} has an object of this name: policyd's folder takes the first, `kubectl apply` the last",
            kept.file.display(),
            kept.document
        );
        let object = format!("{kind} {name}");
        findings.push(located.finding(object, "metadata.name", Severity::Warning, text));
    }
    findings
}
