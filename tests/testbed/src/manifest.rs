//! podwire's own objects, of its manifests, as this cluster has them.

use std::time::Duration;

use runner::{OsRunner, Program, Runner};

use crate::bring_up::Parts;
use crate::error::{Error, Result};
use crate::settings::{Family, Settings};

/// kubectl takes a moment; on a busy machine somewhat more.
const BOUND: Duration = Duration::from_secs(60);

/// The whole network: the plugins, and policyd, which has the nodes forward and keeps their routes and
/// lists. In one piece: a change after it was applied has policyd replaced, node after node.
///
/// # Errors
/// A manifest is missing or cannot be read, or kubectl is missing.
pub(crate) fn podwire(settings: &Settings, parts: &Parts) -> Result<String> {
    let overlay = match settings.family {
        Family::Ipv4 => "network",
        Family::Ipv6 => "ipv6",
        Family::Dual => "dual-stack",
    };
    let folder = parts.conf.join("kubernetes/overlays").join(overlay).display().to_string();
    let program = Program {
        file: parts.peers.join("kubectl"),
        args: &["kustomize", &folder],
        timeout: Some(BOUND),
        ..Program::default()
    };
    let output = OsRunner.run(&program)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Failed {
        program: format!("kubectl kustomize {folder}"),
        status: output.status.to_string(),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
