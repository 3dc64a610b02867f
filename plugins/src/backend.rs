//! By what rules are made: iptables or nf_tables.

use crate::error::Error;
use crate::iptables;
use crate::kernel_tables::{KernelTables, Signs};
use crate::nf_tables::missing;

/// How rules are programmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    /// iptables, by `iptables-restore`.
    Iptables,
    /// nf_tables, without a program.
    Nftables,
}

impl Backend {
    /// Reads a configuration's word for it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "iptables" => Some(Self::Iptables),
            "nftables" => Some(Self::Nftables),
            _ => None,
        }
    }

    /// What a configuration is served by. Where it leaves the choice to podwire and the kernel cannot be asked, its
    /// refusal of the rules will tell more.
    pub(crate) fn chosen(asked: Option<Self>, kernel: &mut KernelTables, signs: Signs<'_>) -> Self {
        asked.unwrap_or_else(|| kernel.backend(signs).unwrap_or(Self::Nftables))
    }

    /// Whether an ADD could ever succeed by the chosen backend; `what` says what needs it.
    pub(crate) fn available(
        asked: Option<Self>,
        signs: Signs<'_>,
        what: &str,
    ) -> Result<(), Error> {
        Self::chosen(asked, &mut KernelTables::default(), signs).is_available(what)
    }

    /// Whether an ADD could ever succeed by this; `what` says what needs it.
    pub(crate) fn is_available(self, what: &str) -> Result<(), Error> {
        match self {
            Self::Iptables => iptables::available(what),
            Self::Nftables => {
                let found = KernelTables::default().has_nftables();
                let found = found.map_err(|error| Error::NotAvailable(error.to_string()))?;
                if found { Ok(()) } else { Err(missing(&format!("{what} by nftables"))) }
            }
        }
    }
}
