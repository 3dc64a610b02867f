//! podwire's own objects, of its manifests, as this cluster has them.

use std::path::Path;
use std::time::Duration;
use std::{env, fs};

use runner::{OsRunner, Program, Runner};
use serde_json::json;

use crate::bring_up::Parts;
use crate::error::{Error, Result};
use crate::settings::{Backend, Family, Settings};

/// kubectl takes a moment; on a busy machine somewhat more.
const BOUND: Duration = Duration::from_secs(60);

/// The tag of the image that has nothing but static programs.
const WITHOUT_PROGRAMS: &str = concat!(env!("CARGO_PKG_VERSION"), "-nftables");

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
    let overlay = parts.conf.join("kubernetes/overlays").join(overlay);
    match settings.backend {
        Backend::Auto => kustomized(&overlay, parts),
        Backend::Iptables => with_backend("iptables", &[], &overlay, parts),
        Backend::Nftables => with_backend("nftables", &[WITHOUT_PROGRAMS], &overlay, parts),
    }
}

/// As whoever asks for a backend has it: by a kustomization of his own, with images of other tags.
fn with_backend(backend: &str, tags: &[&str], overlay: &Path, parts: &Parts) -> Result<String> {
    let overlay = fs::canonicalize(overlay).map_err(Error::file("find", overlay))?;
    let folder = tempfile::tempdir().map_err(Error::file("make a folder in", env::temp_dir()))?;
    let path = fs::canonicalize(folder.path()).map_err(Error::file("find", folder.path()))?;
    // A base must be told by a way that is relative.
    let up = path.ancestors().skip(1).map(|_| "..").collect::<Vec<_>>().join("/");
    let kustomization = json!({
        "resources": [format!("{up}{}", overlay.display())],
        "images": tags.iter().map(|it| json!({"name": "podwire", "newTag": it})).collect::<Vec<_>>(),
        "patches": [{
            "target": {"kind": "DaemonSet", "name": "policyd"},
            "patch": json!([{"op": "add", "path": "/spec/template/spec/containers/0/args/-",
                "value": format!("--backend={backend}")}]).to_string(),
        }],
    });
    let file = path.join("kustomization.yaml");
    fs::write(&file, kustomization.to_string()).map_err(Error::file("write", &file))?;
    kustomized(&path, parts)
}

fn kustomized(folder: &Path, parts: &Parts) -> Result<String> {
    let folder = folder.display().to_string();
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
