//! `podwire ipam`: what host-local has leased.

use std::fs;
use std::path::Path;

use ipam::listing;
use serde_json::{Map, Value};

use super::output::{complain, say};
use crate::error::Error;

/// Prints the networks.
pub(super) fn list(data_dir: &Path) -> Result<(), Error> {
    let networks = listing::networks(data_dir)?;
    if networks.is_empty() {
        let why = if data_dir.exists() { "" } else { ", which does not exist" };
        complain(&format!("there are no networks in {}{why}", data_dir.display()));
    }
    say(&networks.iter().map(|network| format!("{network}\n")).collect::<String>())
}

/// Prints the leases of one network; with its configuration also how many addresses are free.
pub(super) fn show(network: &str, data_dir: &Path, conf: Option<&Path>) -> Result<(), Error> {
    let conf = conf.map(|path| host_local_conf(path, network)).transpose()?;
    say(&listing::show(data_dir, network, conf.as_ref())?.to_string())
}

/// The configuration of `network` in a file: the file's only one, or the plugin of a list that
/// has `ipam`.
fn host_local_conf(path: &Path, network: &str) -> Result<Map<String, Value>, Error> {
    let bytes = fs::read(path).map_err(|source| Error::File {
        what: "read".into(),
        path: path.into(),
        source,
    })?;
    let (name, _, document) = cni::serve::decode_conf(&bytes)?;
    if name != network {
        let text = format!("{} is of network {name:?}, not {network:?}", path.display());
        return Err(Error::Config(text));
    }
    let Some(plugins) = cni::decode::lookup(&document, "plugins").and_then(Value::as_array) else {
        return Ok(document);
    };
    let has_ipam = |plugin: &&Map<String, Value>| cni::decode::lookup(plugin, "ipam").is_some();
    let mut plugin = plugins
        .iter()
        .filter_map(Value::as_object)
        .find(has_ipam)
        .cloned()
        .ok_or_else(|| Error::Config(format!("no plugin of {} has ipam", path.display())))?;
    for key in ["name", "cniVersion"] {
        if let Some(value) = cni::decode::lookup(&document, key) {
            plugin.insert(key.into(), value.clone());
        }
    }
    Ok(plugin)
}
