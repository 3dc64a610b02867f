//! Objects that are written more than once.

use std::collections::BTreeMap;

use super::{Finding, Located, Severity};
use crate::model::NamespacedName;
use crate::source::folder::Written;

pub(super) fn check(objects: &[Located]) -> Vec<Finding> {
    let mut first = BTreeMap::<String, &Located>::new();
    let mut findings = Vec::new();
    for located in objects {
        let object = name(&located.object);
        let Some(kept) = first.get(&object) else {
            first.insert(object, located);
            continue;
        };
        let text = format!(
            "{} document {} has an object of this name: policyd's folder takes the first, `kubectl apply` the last",
            kept.file.display(),
            kept.document
        );
        findings.push(located.finding(object, "metadata.name", Severity::Warning, text));
    }
    findings
}

fn name(object: &Written) -> String {
    match object {
        Written::Pod(it) => format!("Pod {}", NamespacedName::from(&it.metadata)),
        Written::Policy(it) => format!("NetworkPolicy {}", NamespacedName::from(&it.metadata)),
        Written::Namespace(it) => {
            format!("Namespace {}", it.metadata.name.as_deref().unwrap_or_default())
        }
    }
}
