//! The answer as text.

use std::fmt;

use super::{Outcome, Path, PolicyReport, Report, Side};

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, traffic, outcome, paths, notes, problems } = self;
        writeln!(formatter, "{from} to {to}, {traffic}: {outcome}")?;
        for path in paths {
            write!(formatter, "{path}")?;
        }
        for note in notes {
            writeln!(formatter, "note: {note}")?;
        }
        for problem in problems {
            writeln!(formatter, "problem: {problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Partly => "partly allowed",
        })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for pair in &self.addresses {
            writeln!(formatter, "  {} to {}: {}", pair.source, pair.destination, self.outcome)?;
        }
        if !self.open_ports.is_empty() {
            writeln!(formatter, "    only {}", self.open_ports.join(", "))?;
        }
        side(formatter, "egress", &self.egress)?;
        side(formatter, "ingress", &self.ingress)
    }
}

fn side(formatter: &mut fmt::Formatter<'_>, direction: &str, side: &Side) -> fmt::Result {
    let of = side.subject.as_ref().map(|subject| format!(" of {subject}")).unwrap_or_default();
    writeln!(formatter, "    {direction}{of}: {}: {}", side.outcome, side.reason)?;
    side.policies.iter().try_for_each(|it| policy(formatter, it))
}

fn policy(formatter: &mut fmt::Formatter<'_>, policy: &PolicyReport) -> fmt::Result {
    let PolicyReport { policy, outcome, rules } = policy;
    let no_rules = if rules.is_empty() { ": it has no rules" } else { "" };
    writeln!(formatter, "      policy {policy} {}{no_rules}", verb(*outcome))?;
    for rule in rules {
        writeln!(formatter, "        {} {}", rule.path, verb(rule.outcome))?;
        for detail in &rule.details {
            writeln!(formatter, "          {detail}")?;
        }
    }
    Ok(())
}

/// What a policy or rule does: none denies, as they only ever add to what is allowed.
const fn verb(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Allowed => "allows it",
        Outcome::Denied => "does not allow it",
        Outcome::Partly => "allows some ports",
    }
}
