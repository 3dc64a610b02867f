//! The directions that a policy isolates.

use super::{Finding, Subject};

pub(super) fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let spec = subject.spec;
    let is_absent = spec.policy_types.as_ref().is_none_or(Vec::is_empty);
    let (has_ingress, has_egress) =
        (has_rules(spec.ingress.as_deref()), has_rules(spec.egress.as_deref()));
    let mut findings = Vec::new();
    if is_absent && spec.egress.is_some() && !has_egress {
        let text = "isolates ingress alone: without policyTypes, egress is isolated only where it has rules (for none to be allowed, write policyTypes: [Ingress, Egress])";
        findings.push(subject.warning("spec.egress", text.to_owned()));
    }
    if is_absent && has_egress && spec.ingress.is_none() {
        let text = "denies all ingress too: without policyTypes, ingress is always isolated (for egress alone, write policyTypes: [Egress])";
        findings.push(subject.warning("spec.policyTypes", text.to_owned()));
    }
    for (field, name, has_rules, holds) in [
        ("ingress", "Ingress", has_ingress, subject.policy.ingress.is_some()),
        ("egress", "Egress", has_egress, subject.policy.egress.is_some()),
    ] {
        if has_rules && !holds {
            let text = format!("has no effect: policyTypes lacks {name}");
            findings.push(subject.warning(&format!("spec.{field}"), text));
        }
    }
    findings
}

fn has_rules<T>(rules: Option<&[T]>) -> bool {
    rules.is_some_and(|rules| !rules.is_empty())
}
