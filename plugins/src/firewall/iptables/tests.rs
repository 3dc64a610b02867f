use super::*;
use crate::firewall::conf;
use crate::iptables::FAMILIES;
use cni::AddResult;
use cni::decode::{Fields, Problems};
use serde_json::{Value, json};

/// What an attachment of this container has in IPv4 by this configuration.
pub(super) fn rules_of(container_id: &str, conf: &Value, address: &str) -> Rules {
    let problems = Problems::default();
    let conf = conf::read(&Fields::root(conf.as_object().unwrap(), &problems));
    problems.into_result().unwrap();
    let result = json!({"cniVersion": "1.1.0", "interfaces": [{"name": "cni0"}],
        "ips": [{"address": address}]});
    let result = AddResult::from_prev_result(&result, cni::Version::V1_1_0).unwrap();
    let wanted = Wanted::new(conf, result).unwrap();
    Rules::of(record("n1", container_id, "eth0"), &wanted, Backend::Iptables, FAMILIES[0])
}

/// What `iptables-save` prints after the lines were applied to what it printed before. Shared chains are there.
pub(super) fn applied(saved: &str, lines: &[String]) -> String {
    let mut saved: Vec<String> = saved.lines().map(str::to_owned).collect();
    for line in lines {
        let (verb, rest) = line.split_once(' ').unwrap();
        let chain = rest.split(' ').next().unwrap();
        let of_chain = format!("-A {chain} ");
        match verb {
            "-N" => saved.insert(0, format!(":{chain} - [0:0]")),
            "-A" => saved.push(format!("-A {rest}")),
            "-I" => {
                let first = saved.iter().position(|it| it.starts_with(&of_chain));
                saved.insert(first.unwrap_or(saved.len()), format!("-A {rest}"));
            }
            "-D" => {
                let place = saved.iter().position(|it| *it == format!("-A {rest}"));
                saved.remove(place.expect("a rule that is not there cannot be deleted"));
            }
            "-F" => saved.retain(|it| !it.starts_with(&of_chain)),
            "-X" => saved.retain(|it| !it.starts_with(&format!(":{chain} "))),
            _ => panic!("{line}"),
        }
    }
    saved.join("\n")
}

/// What a container has of an earlier ADD.
fn former(container_id: &str) -> Removal<'static> {
    Removal::of_attachment("n1", (container_id, "eth0"), &[])
}

#[test]
fn the_first_attachment_makes_what_is_shared_and_the_next_its_own() {
    let a = rules_of("a", &json!({"ingressPolicy": "isolated"}), "10.1.0.2/24");
    let saved = applied(":FORWARD ACCEPT [0:0]", &a.lines("", &former("a")));
    let of = |policy: &str| {
        format!("-m comment --comment \"CNI firewall plugin rules (ingressPolicy: {policy})\"")
    };
    let (any, own) = (of("same-bridge|isolated"), of("isolated"));
    for rule in [
        "CNI-FORWARD -m comment --comment \"CNI firewall plugin admin overrides\" -j CNI-ADMIN",
        "CNI-FORWARD -d 10.1.0.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "CNI-FORWARD -s 10.1.0.2/32 -j ACCEPT",
        &format!("CNI-ISOLATION-STAGE-1 -i cni0 ! -o cni0 {own} -j CNI-ISOLATION-STAGE-2"),
        &format!("CNI-ISOLATION-STAGE-1 -i cni0 -o cni0 {own} -j DROP"),
        &format!("CNI-ISOLATION-STAGE-1 {any} -j RETURN"),
        &format!("CNI-ISOLATION-STAGE-2 -o cni0 {any} -j DROP"),
        &format!("CNI-ISOLATION-STAGE-2 {any} -j RETURN"),
    ] {
        assert!(rules(&saved).any(|it| it == rule), "{rule}\n{saved}");
    }
    assert_eq!(a.problem(&saved), None);
    let forward: Vec<&str> = rules(&saved).filter(|it| it.starts_with("FORWARD ")).collect();
    assert!(forward[0].ends_with("-j CNI-ISOLATION-STAGE-1"), "isolation comes first: {saved}");
    // ADD once more changes nothing.
    assert_eq!(
        applied(&saved, &a.lines(&saved, &former("a"))).lines().count(),
        saved.lines().count()
    );
    let b = rules_of("b", &json!({}), "10.1.0.3/24");
    assert_eq!(b.lines(&saved, &former("b")).len(), 4, "{:?}", b.lines(&saved, &former("b")));
    assert!(b.addition().lines().iter().all(|line| !line.starts_with("-I")));
}

#[test]
fn a_record_tells_its_network() {
    let name = record("n1", "cid1", "eth0");
    assert_eq!(name, "CNI-FW-43d91f840b65a318f52e");
    assert!(name.starts_with(&records_of("n1")) && !name.starts_with(&records_of("n2")));
    assert_ne!(name, record("n1", "cid1", "eth1"));
}
