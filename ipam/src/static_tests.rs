use super::*;
use crate::testing::call;
use cni::Command;
use serde_json::{Value, json};

fn with_args(conf: Value, args: &str) -> Result<Vec<String>, (u32, String)> {
    let call = Call { args: args.into(), ..call(Command::Add, conf, "c", "eth0") };
    let told = |error: Error| (error.code(), cni::ErrorObject::from(error).msg);
    let gateway =
        |ip: &IpConfig| ip.gateway.map_or(String::new(), |gateway| format!(" via {gateway}"));
    let result = add(&call).map_err(told)?;
    Ok(result.ips.iter().map(|ip| format!("{}{}", ip.address, gateway(ip))).collect())
}

fn base() -> Value {
    json!({"ipam": {"addresses": [
        {"address": "10.1.0.5/24", "gateway": "10.1.0.1"}, {"address": "fd00::5/64"},
    ]}})
}

#[test]
fn configured_addresses_are_given() {
    let mut conf = base();
    conf["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0", "gw": "10.1.0.254"}]);
    conf["ipam"]["dns"] = json!({"nameservers": ["10.1.0.1"]});
    assert_eq!(with_args(conf.clone(), "").unwrap(), ["10.1.0.5/24 via 10.1.0.1", "fd00::5/64"]);
    let result = add(&call(Command::Add, conf, "c", "eth0")).unwrap();
    assert_eq!(result.routes[0].gw, cni::parse_address("10.1.0.254"));
    assert_eq!(result.dns.nameservers, ["10.1.0.1"]);
    assert!(with_args(json!({"ipam": {}}), "").unwrap().is_empty());
}

#[test]
fn the_runtime_adds_or_replaces() {
    let args = "IP=10.2.0.5/24, ::ffff:10.3.0.5/120;GATEWAY=10.2.0.1,fd00::1,10.1.0.254";
    assert_eq!(
        with_args(base(), args).unwrap(),
        [
            "10.1.0.5/24 via 10.1.0.1",
            "fd00::5/64 via fd00::1",
            "10.2.0.5/24 via 10.2.0.1",
            "10.3.0.5/24"
        ]
    );
    let mut conf = base();
    conf["args"] = json!({"cni": {"ips": ["10.4.0.5/24"]}});
    assert_eq!(with_args(conf.clone(), args).unwrap(), ["10.4.0.5/24"]);
    conf["runtimeConfig"] = json!({"ips": ["10.5.0.5/24"]});
    assert_eq!(with_args(conf.clone(), args).unwrap(), ["10.5.0.5/24"]);
    conf["runtimeConfig"] = json!({"ips": []});
    assert_eq!(with_args(conf, args).unwrap(), ["10.4.0.5/24"]);
}

#[test]
fn problems_name_place_and_value() {
    let wrong = |key: &str, value: Value| {
        let mut conf = base();
        conf[key] = value;
        with_args(conf, "").unwrap_err()
    };
    let seven = |text: &str| (7, format!("invalid network configuration: {text}"));
    assert_eq!(
        wrong("ipam", json!({"addresses": [{"address": "10.1.0.5"}]})),
        seven(
            "ipam.addresses[0].address: the 'address' field is expected to be in CIDR notation, got: '10.1.0.5'"
        )
    );
    let other_family = json!({"addresses": [{"address": "10.1.0.5/24", "gateway": "fd00::1"}]});
    assert_eq!(
        wrong("ipam", other_family),
        seven("ipam.addresses[0].gateway: fd00::1 is of another family than 10.1.0.5/24")
    );
    assert_eq!(
        wrong("runtimeConfig", json!({"ips": ["x"]})),
        seven(
            "runtimeConfig.ips[0]: an entry in the 'ips' field is NOT in CIDR notation, got: 'x'"
        )
    );
    assert_eq!(
        with_args(base(), "IP=10.1.0.9").unwrap_err(),
        (4, "CNI_ARGS: the 'ip' field is expected to be in CIDR notation, got: '10.1.0.9'".into())
    );
    assert_eq!(
        with_args(base(), "GATEWAY=10.1").unwrap_err(),
        (4, "CNI_ARGS: invalid gateway address: 10.1".into())
    );
    assert_eq!(wrong("ipam", Value::Null), seven("ipam: IPAM config missing 'ipam' key"));
    let two = json!({"addresses": [{"address": "10.1.0.5/24"}, {"address": "10.1.0.6/24"}]});
    let old = with_args(json!({"cniVersion": "0.2.0", "ipam": two}), "").unwrap_err();
    assert_eq!(
        old,
        seven("ipam: CNI version 0.2.0 does not support more than 1 address per family")
    );
}

#[test]
fn check_compares_gateways_only() {
    let checked = |ips: Value| {
        let mut conf = base();
        if !ips.is_null() {
            conf["prevResult"] = json!({"cniVersion": "1.1.0", "ips": ips});
        }
        check(&call(Command::Check, conf, "c", "eth0"))
            .map_err(|error| (error.code(), error.to_string()))
    };
    checked(json!([{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}])).unwrap();
    checked(json!([])).unwrap();
    let (code, text) =
        checked(json!([{"address": "10.1.0.5/24", "gateway": "10.1.0.2"}])).unwrap_err();
    assert_eq!(code, cni::code::CHANGED);
    assert_eq!(
        text,
        "static: Failed to match addr 10.1.0.5 on interface eth0: its gateway is 10.1.0.2, configured is 10.1.0.1"
    );
    assert_eq!(checked(Value::Null).unwrap_err().0, 7);
}

#[test]
fn the_other_verbs_have_nothing_to_do() {
    let mut conf = base();
    del(&call(Command::Del, json!({"ipam": 1}), "c", "eth0")).unwrap();
    status(&call(Command::Status, conf.clone(), "", "")).unwrap();
    assert_eq!(gc(&call(Command::Gc, conf.clone(), "", "")).unwrap_err().code(), 7);
    conf["cni.dev/valid-attachments"] = json!([]);
    gc(&call(Command::Gc, conf, "", "")).unwrap();
}
