//! Label selectors.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::Labels;
use super::error::{Defect, Problem};

/// A label selector: all its requirements must hold. Without any it selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(BTreeSet<Requirement>);

/// What a label selector requires of the labels. An entry of `matchLabels` is an [`Self::In`] of
/// one value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Requirement {
    /// The label is there, with one of these values.
    In {
        /// The label's key.
        key: String,
        /// The values, at least one.
        values: BTreeSet<String>,
    },
    /// The label has none of these values, or is not there.
    NotIn {
        /// The label's key.
        key: String,
        /// The values, at least one.
        values: BTreeSet<String>,
    },
    /// The label is there.
    Exists {
        /// The label's key.
        key: String,
    },
    /// The label is not there.
    DoesNotExist {
        /// The label's key.
        key: String,
    },
}

impl Requirement {
    pub(crate) fn holds(&self, labels: &Labels) -> bool {
        match self {
            Self::In { key, values } => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn { key, values } => {
                labels.get(key).is_none_or(|value| !values.contains(value))
            }
            Self::Exists { key } => labels.contains_key(key),
            Self::DoesNotExist { key } => !labels.contains_key(key),
        }
    }
}

impl Selector {
    /// Whether an object with these labels is selected.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.holds(labels))
    }

    /// What it requires, in one order however it was written.
    pub fn requirements(&self) -> impl Iterator<Item = &Requirement> {
        self.0.iter()
    }

    pub(super) fn compile(selector: &LabelSelector) -> Result<Self, Defect> {
        requirements(selector).collect::<Result<_, _>>().map(Self)
    }

    /// The selector of those requirements that can be understood, and what is wrong with the
    /// others. It selects all that the whole could have meant, and perhaps more.
    pub(super) fn widest(selector: &LabelSelector) -> (Self, Vec<Defect>) {
        let mut defects = Vec::new();
        let understood = requirements(selector)
            .filter_map(|requirement| requirement.map_err(|defect| defects.push(defect)).ok())
            .collect();
        (Self(understood), defects)
    }
}

fn requirements(
    selector: &LabelSelector,
) -> impl Iterator<Item = Result<Requirement, Defect>> + '_ {
    let labels = selector.match_labels.iter().flatten().map(|(key, value)| {
        checked(key, [value.clone()].into())
            .map(|values| Requirement::In { key: key.clone(), values })
            .map_err(|problem| Defect::new(format!("matchLabels[{key:?}]"), problem))
    });
    let expressions = selector.match_expressions.iter().flatten().enumerate();
    labels.chain(expressions.map(|(index, expression)| {
        requirement(expression)
            .map_err(|defect| defect.within(&format!("matchExpressions[{index}]")))
    }))
}

fn requirement(expression: &LabelSelectorRequirement) -> Result<Requirement, Defect> {
    let LabelSelectorRequirement { key, operator, values } = expression;
    let values = values.iter().flatten().cloned().collect::<BTreeSet<_>>();
    let key = key.clone();
    let no_values = values.is_empty();
    let values = checked(&key, values).map_err(|problem| match problem {
        Problem::LabelKey(_) => Defect::new("key", problem),
        _ => Defect::new("values", problem),
    })?;
    match operator.as_str() {
        "In" | "NotIn" if no_values => {
            Err(Defect::new("values", Problem::ValuesMissing(operator.clone())))
        }
        "Exists" | "DoesNotExist" if !no_values => {
            Err(Defect::new("values", Problem::ValuesGiven(operator.clone())))
        }
        "In" => Ok(Requirement::In { key, values }),
        "NotIn" => Ok(Requirement::NotIn { key, values }),
        "Exists" => Ok(Requirement::Exists { key }),
        "DoesNotExist" => Ok(Requirement::DoesNotExist { key }),
        _ => Err(Defect::new("operator", Problem::Operator(operator.clone()))),
    }
}

/// The values, when labels can have this key and them.
fn checked(key: &str, values: BTreeSet<String>) -> Result<BTreeSet<String>, Problem> {
    if !is_label_key(key) {
        return Err(Problem::LabelKey(key.to_owned()));
    }
    match values.iter().find(|value| !value.is_empty() && !is_label_name(value)) {
        Some(value) => Err(Problem::LabelValue(value.clone())),
        None => Ok(values),
    }
}

fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        None => is_label_name(key),
        Some((domain, name)) => is_domain(domain) && is_label_name(name),
    }
}

fn is_label_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.ends_with(|last: char| last.is_ascii_alphanumeric())
}

fn is_domain(domain: &str) -> bool {
    domain.len() <= 253
        && domain.split('.').all(|part| {
            !part.is_empty()
                && part.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
                && !part.starts_with('-')
                && !part.ends_with('-')
        })
}
