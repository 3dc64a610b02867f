//! podwire's own objects, of its manifests, as this cluster has them.

use std::path::Path;
use std::time::Duration;

use runner::{OsRunner, Program, Runner};
use serde_json::{Value, json};

use crate::bring_up::Parts;
use crate::error::{Error, Result};
use crate::settings::Settings;
use crate::state::write;

/// kubectl takes a moment; on a busy machine somewhat more.
const BOUND: Duration = Duration::from_secs(60);

/// policyd, which keeps the nodes' network too, in one piece: what is changed after it was applied
/// has each node's policyd replaced, one after the other. `folder` holds what the text is made by.
///
/// # Errors
/// A manifest is missing or cannot be read, or kubectl is missing.
pub(crate) fn policyd(settings: &Settings, parts: &Parts, folder: &Path) -> Result<String> {
    let conf = parts.conf.join("kubernetes");
    let conf = conf.canonicalize().map_err(Error::file("find", conf))?;
    let has_ipv6 = settings.family.ranges().iter().any(|it| it.pods.contains(':'));
    write(&folder.join("kustomization.yaml"), kustomization(&conf, has_ipv6).to_string())?;
    let folder = folder.display().to_string();
    let program = Program {
        file: parts.peers.join("kubectl"),
        args: &["kustomize", "--load-restrictor=LoadRestrictionsNone", &folder],
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

fn kustomization(conf: &Path, has_ipv6: bool) -> Value {
    let mut patches = vec![json!({"path": conf.join("node-network.yaml")})];
    if has_ipv6 {
        patches.extend(masquerade_ipv6());
    }
    json!({"resources": [conf.join("policyd.yaml")], "patches": patches})
}

/// policyd masquerades IPv6 where it is told to, as ip-masq-agent does: pods have private addresses.
fn masquerade_ipv6() -> [Value; 2] {
    let switch = json!([{"op": "add", "path": "/spec/template/spec/containers/0/args/-",
        "value": "--enable-ipv6"}]);
    let private = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"];
    let config = json!({"nonMasqueradeCIDRs": private, "resyncInterval": "60s"});
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "policyd", "namespace": "kube-system"},
        "data": {"ip-masq-agent": config.to_string()}});
    [
        json!({"target": {"kind": "DaemonSet", "name": "policyd"}, "patch": switch.to_string()}),
        json!({"patch": config.to_string()}),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv6_is_masqueraded_where_pods_have_it() {
        let patches = |has_ipv6| kustomization(Path::new("/conf"), has_ipv6)["patches"].clone();
        assert_eq!(patches(false), json!([{"path": "/conf/node-network.yaml"}]));
        assert_eq!(patches(true).as_array().unwrap().len(), 3);
        assert!(patches(true).to_string().contains("--enable-ipv6"));
    }
}
