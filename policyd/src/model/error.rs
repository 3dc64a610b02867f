//! What is wrong with an object, and where in it.

use super::NamespacedName;

/// What is wrong with an object, and where in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {object}: {path}: {problem}")]
pub struct Error {
    /// The object's kind.
    pub kind: &'static str,
    /// The object.
    pub object: NamespacedName,
    /// The JSON path of the field, such as `spec.ingress[0].from[1].ipBlock.cidr`.
    pub path: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What can be wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The operator of a label selector.
    #[error("{0:?} is no operator (In, NotIn, Exists and DoesNotExist are)")]
    Operator(String),
    /// `In` or `NotIn` without values.
    #[error("operator {0} needs at least one value")]
    ValuesMissing(String),
    /// `Exists` or `DoesNotExist` with values.
    #[error("operator {0} takes no values")]
    ValuesGiven(String),
    /// A key that no label can have.
    #[error("{0:?} cannot be the key of a label")]
    LabelKey(String),
    /// A value that no label can have.
    #[error("{0:?} cannot be the value of a label")]
    LabelValue(String),
    /// A direction of `policyTypes`.
    #[error("{0:?} is no policy type (Ingress and Egress are)")]
    PolicyType(String),
    /// A peer that names nothing.
    #[error("a peer needs a podSelector, a namespaceSelector or an ipBlock ({{}} is none)")]
    PeerEmpty,
    /// A peer that names pods and addresses at once.
    #[error("an ipBlock cannot be combined with selectors in one peer (make it two)")]
    PeerMixed,
    /// An address block.
    #[error("{0:?} is not a CIDR (address/prefix length)")]
    Cidr(String),
    /// An exception that is not a part of its block.
    #[error("{except} is not a strict subset of cidr {cidr}")]
    ExceptOutside {
        /// The exception.
        except: String,
        /// The block.
        cidr: String,
    },
    /// The protocol of a port.
    #[error("{0:?} is not a protocol (TCP, UDP and SCTP are)")]
    Protocol(String),
    /// The number of a port.
    #[error("{0} is not a port (1 to 65535)")]
    PortNumber(i32),
    /// The name of a port.
    #[error(
        "{0:?} cannot be the name of a port (at most 15 of a-z, 0-9 and -, one of them a letter; a number is written without quotes)"
    )]
    PortName(String),
    /// The end of a range whose beginning is not a number.
    #[error("endPort needs a numeric port")]
    EndPortAlone,
    /// A range that ends before it begins.
    #[error("endPort {end} is less than port {port}")]
    EndPortBefore {
        /// The first port.
        port: u16,
        /// The last.
        end: u16,
    },
    /// Peers and ports of the rules of one direction.
    #[error(
        "{found} combinations of a peer with ports are too many (at most {most}): it allows nothing; make it several policies"
    )]
    TooManyCombinations {
        /// How many there are.
        found: usize,
        /// How many there may be.
        most: usize,
    },
    /// What is left of the address blocks of one direction.
    #[error(
        "its address blocks without their exceptions are more than {most} networks: it allows nothing; make it several policies"
    )]
    TooManyNetworks {
        /// How many there may be.
        most: usize,
    },
    /// A pod's address.
    #[error("{0:?} is not an IP address")]
    Address(String),
}

/// A [`Problem`] and where it is, as seen from the part of the object that is being read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Defect {
    path: String,
    problem: Problem,
}

impl Defect {
    pub(super) fn new(path: impl Into<String>, problem: Problem) -> Self {
        Self { path: path.into(), problem }
    }

    /// The same defect, as seen from the part of which `field` is one.
    pub(super) fn within(self, field: &str) -> Self {
        let path =
            if self.path.is_empty() { field.to_owned() } else { format!("{field}.{}", self.path) };
        Self { path, ..self }
    }

    pub(super) fn of(self, kind: &'static str, object: &NamespacedName) -> Error {
        Error { kind, object: object.clone(), path: self.path, problem: self.problem }
    }
}
