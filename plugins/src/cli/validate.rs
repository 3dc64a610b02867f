//! `podwire validate`: the plugins' own parsers over files, every problem told.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cni::decode::{Fields, Problem, Problems, Severity};
use cni::{NetConf, Version};
use serde_json::{Map, Value};

use super::output::{complain, say};
use crate::{bandwidth, bridge, firewall, plugin, policy, portmap, ptp, sbr, tuning};

/// A file could not be read at all.
const EXIT_UNREADABLE: u8 = 2;

/// Checks each file and prints its problems. Exits 1 when there are errors, 2 when a file cannot
/// be read.
pub(super) fn validate(files: &[PathBuf]) -> ExitCode {
    let mut exit = 0;
    for file in files {
        let problems = match fs::read(file) {
            Ok(bytes) => check_configuration(&bytes),
            Err(error) => {
                complain(&format!("cannot read {}: {error}", file.display()));
                exit = EXIT_UNREADABLE;
                continue;
            }
        };
        if let Err(error) = say(&report(file, &problems)) {
            complain(&error.to_string());
        }
        if problems.iter().any(is_error) {
            exit = exit.max(1);
        }
    }
    ExitCode::from(exit)
}

fn is_error(problem: &Problem) -> bool {
    problem.severity != Severity::Unknown
}

fn report(file: &Path, problems: &[Problem]) -> String {
    if problems.is_empty() {
        return format!("{}: ok\n", file.display());
    }
    let line = |problem: &Problem| {
        let kind = if is_error(problem) { "error" } else { "warning" };
        format!("{}: {kind}: {problem}\n", file.display())
    };
    problems.iter().map(line).collect()
}

/// Every problem of a network configuration or a list of them, as `podwire validate` tells them.
#[must_use]
pub fn check_configuration(bytes: &[u8]) -> Vec<Problem> {
    let problems = Problems::default();
    match serde_json::from_slice::<Value>(bytes) {
        Err(error) => problems.add(Severity::Undecodable, ".", error.to_string()),
        Ok(Value::Object(document)) => {
            check_document(&document, &cni::duplicates(bytes), &problems);
        }
        Ok(_) => problems.add(Severity::Undecodable, ".", "expected an object"),
    }
    problems.into_vec()
}

fn check_document(document: &Map<String, Value>, duplicates: &[String], problems: &Problems) {
    let root = Fields::root(document, problems);
    check_name_and_version(&root);
    if !root.has("plugins") {
        check_plugin(&root, duplicates);
        root.finish();
        return;
    }
    for key in ["disableCheck", "disableGC", "loadOnlyInlinedPlugins"] {
        let _ = root.bool(key);
    }
    let plugins = root.array("plugins").unwrap_or_default();
    if plugins.is_empty() {
        root.invalid("plugins", "no plugin in the list");
    }
    for element in plugins {
        let Some(plugin) = element.object() else { continue };
        check_plugin(&plugin, duplicates);
        plugin.finish();
    }
    root.finish();
}

fn check_name_and_version(root: &Fields<'_>) {
    match root.string("name") {
        None if root.has("name") => {}
        None | Some("") => root.invalid("name", "missing network name"),
        Some(name) if !cni::name_is_valid(name) => {
            root.invalid("name", format!("invalid characters in network name {name:?}"));
        }
        Some(_) => {}
    }
    let versions = root.strings("cniVersions").unwrap_or_default();
    for version in root.string("cniVersion").into_iter().chain(versions) {
        if Version::parse(version).is_none() {
            root.invalid("cniVersion", format!("{version:?} is no version that podwire speaks"));
        }
    }
}

fn check_plugin(fields: &Fields<'_>, duplicates: &[String]) {
    NetConf::read_common(fields);
    let kind = match fields.string("type") {
        None if fields.has("type") => return,
        None | Some("") => return fields.invalid("type", "missing plugin type"),
        Some(kind) => kind,
    };
    let unsupported = match kind {
        "bridge" => bridge::read_conf(fields, None).unsupported(),
        "ptp" => {
            let _ = ptp::read_conf(fields);
            None
        }
        "loopback" => {
            let _ = NetConf::dns(fields);
            None
        }
        "bandwidth" => {
            let _ = bandwidth::read_conf(fields);
            None
        }
        "firewall" => {
            let _ = firewall::read_conf(fields);
            None
        }
        "podwire-policy" => {
            let _ = policy::read_conf(fields);
            None
        }
        "sbr" => {
            let _ = sbr::read_conf(fields);
            None
        }
        "portmap" => {
            let _ = portmap::read_conf(fields);
            None
        }
        "tuning" => {
            let _ = tuning::read_conf(fields, None, duplicates);
            None
        }
        "host-local" | "static" => None,
        other => {
            // Its keys are not known here, so that none is called unknown.
            fields.know_all();
            let text = format!("podwire has no plugin {other:?}: not checked");
            return fields.problems().add(Severity::Unknown, fields.path_of("type"), text);
        }
    };
    if let Some(key) = unsupported {
        fields.invalid(key, "podwire cannot do this yet");
    }
    check_ipam(fields, kind);
}

fn check_ipam(fields: &Fields<'_>, kind: &str) {
    let of_ipam = fields.object("ipam").and_then(|ipam| ipam.string("type"));
    let is_ipam_plugin = matches!(kind, "host-local" | "static");
    match of_ipam.unwrap_or(if is_ipam_plugin { kind } else { "" }) {
        "host-local" => ipam::host_local::validate(fields),
        "static" => ipam::static_addresses::validate(fields),
        "" if kind == "ptp" => fields.invalid("ipam", "missing, or without type: ptp needs it"),
        "" => {}
        other if plugin::by_name(other).is_some() => {
            fields.invalid("ipam", format!("{other:?} is no IPAM plugin"));
        }
        other => {
            let text = format!("podwire has no IPAM plugin {other:?}: not checked");
            fields.problems().add(Severity::Unknown, fields.path_of("ipam.type"), text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<String> {
        let line = |p: &Problem| format!("{}{p}", if is_error(p) { "" } else { "warning: " });
        check_configuration(text.as_bytes()).iter().map(line).collect()
    }

    #[test]
    fn a_good_list_has_no_problems() {
        let text = r#"{"cniVersion":"1.1.0","name":"net","disableCheck":true,"plugins":[
            {"type":"bridge","bridge":"br0","isGateway":true,"capabilities":{"ips":true},
             "ipam":{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
            {"type":"loopback"},
            {"type":"sbr","table":100,"gateways":["10.1.0.1","fd00::1"],"addSourceHints":true},
            {"type":"tuning","sysctl":{"net.core.somaxconn":"500"},"mtu":1400,"txQLen":5,"dataDir":"/x"},
            {"type":"portmap","capabilities":{"portMappings":true},"snat":true,"masqAll":false,"markMasqBit":13,
             "backend":"iptables","conditionsV4":["!","-s","10.0.0.0/8"],"conditionsV6":[]},
            {"type":"firewall","backend":"nftables","ingressPolicy":"same-bridge","firewalldZone":"trusted",
             "iptablesAdminChainName":"CNI-ADMIN"},
            {"type":"podwire-policy","interface":"eth0","timeout":500,"onAgentDown":"retry",
             "agentDownTimeout":60}]}"#;
        assert_eq!(told(text), [""; 0]);
    }

    #[test]
    fn every_problem_is_told_with_its_path() {
        let text = r#"{"cniVersion":"7.0.0","name":"a/b","plugins":[
            {"type":"bridge","isGatway":true,"vlan":5000,
             "ipam":{"type":"host-local","ranges":[[{"subnet":"10.1.0.5/24"}]]}},
            {"type":"vlan","snat":true},
            {"type":"ptp"},
            {"type":"bridge","ipam":{"type":"host-local",
             "ranges":[[{"subnet":"10.1.0.0/24","gateway":"fd00::1"}]]}},
            {"type":"bridge","vlanTrunk":[]},
            {"type":"ptp","ipam":{"type":"static",
             "addresses":[{"address":"fd00::5/64","gateway":"10.1.0.1"}]}},
            {"type":"podwire-policy","onAgentDown":"open","timeOut":0,"ipam":{}},
            {"type":"tuning","sysctl":{"net.a":"1","net.a":"2","kernel.b":"1"},"mtu":-1,"mac":"x"},
            {"type":"sbr","table":0,"gateways":["x"],"addSourceHint":true},
            {"type":"portmap","snatt":true,"backend":"nftables","conditionsV6":["-i","eth0"],"markMasqBit":32},
            {"type":"firewall","backend":"nft","ingressPolicies":"open"}]}"#;
        let told = told(text);
        for expected in [
            "name: invalid characters",
            "cniVersion: \"7.0.0\"",
            "plugins[0].vlan: invalid VLAN ID 5000",
            "plugins[0].ipam.ranges[0][0].subnet",
            "warning: plugins[0].isGatway: unknown key",
            "warning: plugins[1].type: podwire has no plugin \"vlan\"",
            "plugins[2].ipam: missing",
            "plugins[3].ipam.ranges[0][0].gateway: fd00::1 is of another family",
            "plugins[4].vlanTrunk: podwire cannot do this yet",
            "plugins[5].ipam.addresses[0].gateway: 10.1.0.1 is of another family",
            "plugins[6].onAgentDown: \"open\" is neither",
            "plugins[6].timeout: 0 is not from 1 to 60000",
            "plugins[7].sysctl.net.a: duplicated",
            "plugins[7].sysctl.kernel.b: invalid net sysctl key",
            "plugins[7].mtu: -1 is not from 0",
            "plugins[7].mac: \"x\" is no MAC address",
            "plugins[8].table: 0 is not from 1",
            "plugins[8].gateways[0]: invalid static gateway IP address: \"x\"",
            "warning: plugins[8].addSourceHint: unknown key",
            "warning: plugins[9].snatt: unknown key",
            "plugins[9].backend: nftables is asked for, but the configuration has options of iptables alone",
            "plugins[9].markMasqBit: 32 is not from 0 to 31",
            "plugins[10].backend: unrecognized backend \"nft\"",
            "warning: plugins[10].ingressPolicies: unknown key",
        ] {
            assert!(told.iter().any(|line| line.starts_with(expected)), "{expected}: {told:#?}");
        }
    }

    #[test]
    fn a_key_without_a_name_has_a_place() {
        let text = r#"{"name":"n","type":"loopback","":1,"dns":{}}"#;
        assert_eq!(told(text), [r#"warning: [""]: unknown key (ignored)"#]);
    }

    #[test]
    fn what_is_no_configuration_is_told() {
        assert_eq!(told("[]"), [".: expected an object"]);
        assert_eq!(
            told(r#"{"name":"n","type":"x","plugins":[]}"#)[0],
            "plugins: no plugin in the list"
        );
        assert!(told("{").first().unwrap().starts_with(".: EOF"));
    }
}
