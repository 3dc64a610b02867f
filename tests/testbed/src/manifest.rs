//! podwire's own objects, of its manifests, as this cluster has them.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use runner::{OsRunner, Program, Runner};
use serde_json::{Value, json};

use crate::bring_up::Parts;
use crate::error::{Error, Result};
use crate::settings::{API_SERVER, Backend, Family, Proxy, Settings};

/// kubectl takes a moment; on a busy machine somewhat more.
const BOUND: Duration = Duration::from_secs(60);

/// The tag of the image that has nothing but static programs.
const WITHOUT_PROGRAMS: &str = concat!(env!("CARGO_PKG_VERSION"), "-nftables");

/// The whole network: the plugins, and policyd, which has the nodes forward and keeps their routes and
/// lists; and proxyd, where it has the place of kube-proxy. In one piece: a change after it was applied has
/// policyd replaced, node after node.
///
/// # Errors
/// A manifest is missing or cannot be read, or kubectl is missing.
pub(crate) fn podwire(settings: &Settings, parts: &Parts) -> Result<String> {
    let overlay = match settings.family {
        Family::Ipv4 => "network",
        Family::Ipv6 => "ipv6",
        Family::Dual => "dual-stack",
    };
    let folder = parts.conf.join("kubernetes");
    let (overlay, proxyd) = (folder.join("overlays").join(overlay), folder.join("proxyd"));
    let is_by_proxyd = settings.proxy == Proxy::Proxyd;
    if settings.backend == Backend::Auto && !is_by_proxyd {
        return kustomized(&overlay, parts);
    }
    let folder = tempfile::tempdir().map_err(Error::file("make a folder in", env::temp_dir()))?;
    let path = absolute(folder.path())?;
    // A base must be told by a way that is relative.
    let up = path.ancestors().skip(1).map(|_| "..").collect::<Vec<_>>().join("/");
    let bases = [Some(overlay), is_by_proxyd.then_some(proxyd)];
    let bases = bases.into_iter().flatten();
    let bases = bases.map(|it| Ok(format!("{up}{}", absolute(&it)?.display())));
    let kustomization = kustomization(settings, &bases.collect::<Result<Vec<_>>>()?);
    let file = path.join("kustomization.yaml");
    fs::write(&file, kustomization.to_string()).map_err(Error::file("write", &file))?;
    kustomized(&path, parts)
}

fn absolute(folder: &Path) -> Result<PathBuf> {
    fs::canonicalize(folder).map_err(Error::file("find", folder))
}

/// As whoever asks for a backend, or for proxyd, has it: with images of other tags and options of his own.
fn kustomization(settings: &Settings, bases: &[String]) -> Value {
    let backend = match settings.backend {
        Backend::Auto => None,
        Backend::Iptables => Some("iptables"),
        Backend::Nftables => Some("nftables"),
    };
    let tags = (settings.backend == Backend::Nftables).then_some(WITHOUT_PROGRAMS);
    let patch = |name: &str, arguments: &[String]| {
        let added = arguments.iter().map(|it| {
            json!({"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": it})
        });
        json!({
            "target": {"kind": "DaemonSet", "name": name},
            "patch": Value::from_iter(added).to_string(),
        })
    };
    let mut patches: Vec<_> =
        backend.iter().map(|it| patch("policyd", &[format!("--backend={it}")])).collect();
    let mut api_server = Vec::new();
    if settings.proxy == Proxy::Proxyd {
        let options = [
            format!("--cluster-cidr={}", settings.family.list(|it| it.pods.to_owned())),
            format!("--service-cidr={}", settings.family.list(|it| it.services.to_owned())),
            // The size of the table of connections is the whole machine's.
            "--conntrack-max-per-core=0".to_owned(),
        ];
        patches.push(patch("podwire-proxyd", &options));
        api_server.push(json!({
            "name": "podwire-proxyd", "namespace": "kube-system",
            "literals": [
                format!("KUBERNETES_SERVICE_HOST={}", settings.api_server_host()),
                format!("KUBERNETES_SERVICE_PORT={API_SERVER}"),
            ],
        }));
    }
    json!({
        "resources": bases,
        "images": tags.iter().map(|it| json!({"name": "podwire", "newTag": it})).collect::<Vec<_>>(),
        "patches": patches,
        "configMapGenerator": api_server,
    })
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
