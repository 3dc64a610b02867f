//! The rules of masquerading go, wherever they are and whatever programs there are.

use lab::{Call, Churn};
use serde_json::{Value, json};

use crate::common::{Site, bridge_with_all, ptp_with_all};
use crate::rules::{made_as_by_programs, path_with, path_with_kinds, path_with_script};

const SAVES: &str = "iptables-nft-save -t nat; ip6tables-nft-save -t nat; \
                     iptables-legacy-save -t nat; ip6tables-legacy-save -t nat";

/// The rules and chains of attachments, in the tables of nf_tables and in those of old.
fn rules(site: &Site) -> Vec<String> {
    let saved = site.node.sh(SAVES);
    saved.lines().filter(|line| line.contains("CNI-")).map(str::to_owned).collect()
}

fn with_path(call: Call, folder: &tempfile::TempDir) -> Call {
    call.env("PATH", folder.path().to_str().expect("temporary names are ASCII"))
}

#[test]
fn an_add_makes_what_the_programs_would() {
    for mut conf in [bridge_with_all(), ptp_with_all()] {
        // host-local gives another one each time.
        let addresses = json!([{"address": "10.1.0.2/20", "gateway": "10.1.0.1"},
            {"address": "fd00:1::2/61", "gateway": "fd00:1::1"}]);
        conf["ipam"] = json!({"type": "static", "addresses": addresses});
        let site = Site::new(conf);
        let pod = site.node.pod("pod1");
        made_as_by_programs(&site, &|command| site.call(command, &pod));
    }
}

/// What nft has put into the tables iptables' programs cannot list. A container's second interface shares the chain of the
/// first.
#[test]
fn among_rules_that_iptables_cannot_read() {
    let site = Site::new(bridge_with_all());
    let pod = site.node.pod("pod1");
    site.hide_from_iptables();
    let listed = || site.listed_by_nft();
    let before = listed();
    let _ = site.add(&pod).ok();
    let first = listed();
    assert_ne!(first, before);
    let second = |command| site.run(&site.call(command, &pod).ifname("eth1"));
    let result = second("ADD").ok();
    assert!(listed().len() > first.len());
    let check = site.call("CHECK", &pod).ifname("eth1");
    let keys = json!({"prevResult": result});
    let _ = site.run(&check.conf(&site.conf_with(&keys))).ok();
    let _ = second("DEL").ok();
    assert_eq!(listed().len(), first.len());
    let _ = site.del(&pod).ok();
    assert_eq!(listed(), before);
}

#[test]
fn rules_in_the_tables_of_old_are_removed() {
    let legacy = path_with("legacy");
    for conf in [bridge_with_all(), ptp_with_all()] {
        let site = Site::new(conf);
        let pod = site.node.pod("pod1");
        let _ = site.run(&with_path(site.call("ADD", &pod), &legacy)).ok();
        assert!(site.node.sh("iptables-legacy-save -t nat").contains("MASQUERADE"));
        let _ = site.run(&with_path(site.call("DEL", &pod), &legacy)).ok();
        assert_eq!(rules(&site), Vec::<String>::new());
    }
}

/// After an ADD by these programs IPv6 has its rules in the tables of old, IPv4 has those in the ones of this kind, and
/// nothing is anywhere else.
fn are_where_programs_see_them(path: &tempfile::TempDir, kind_of_ipv4: &str) {
    let site = Site::new(bridge_with_all());
    let pod = site.node.pod("pod1");
    // What others keep in nf_tables leaves the chains of iptables there.
    let has_chain = |family| {
        let chain = format!("nft list chain {family} nat POSTROUTING");
        site.node.try_sh(&chain).status.success()
    };
    assert!(has_chain("ip") && has_chain("ip6"));
    let add = site.run(&with_path(site.call("ADD", &pod), path)).ok();
    for (family, kind) in [("iptables", kind_of_ipv4), ("ip6tables", "legacy")] {
        for of in ["nft", "legacy"] {
            let saved = site.node.sh(&format!("{family}-{of}-save -t nat"));
            assert_eq!(saved.contains("CNI-"), of == kind, "{family}-{of}\n{saved}");
        }
    }
    let conf = site.conf_with(&json!({"prevResult": add}));
    let _ = site.run(&with_path(site.call("CHECK", &pod).conf(&conf), path)).ok();
    let _ = site.run(&with_path(site.call("DEL", &pod), path)).ok();
    // By the node's programs, of which it has both kinds.
    let _ = site.del(&pod).ok();
    assert_eq!(rules(&site), Vec::<String>::new());
}

/// Each family's programs are an alternative of their own.
#[test]
fn each_family_has_its_rules_where_its_own_programs_see_them() {
    are_where_programs_see_them(&path_with_kinds(["nft", "legacy"]), "nft");
}

/// As those of images that choose when they are called; the tables of old are not there yet.
#[test]
fn programs_of_which_nothing_is_known_are_called() {
    let script = "name=${0##*/}; exec /usr/sbin/${name%-*}-legacy-${name##*-} \"$@\"";
    are_where_programs_see_them(&path_with_script("wrapper", script), "legacy");
}

/// Somebody made a chain of the name that the kernel does not call, or at another time: the programs refuse it.
#[test]
fn a_chain_that_is_not_called_as_that_of_iptables_is_refused() {
    for base in ["", "{ type nat hook postrouting priority 50; }"] {
        for conf in [bridge_with_all(), ptp_with_all()] {
            let site = Site::new(conf);
            site.node.sh(&format!(
                "nft delete table ip nat; nft add table ip nat
                 nft 'add chain ip nat POSTROUTING {base}'"
            ));
            let pod = site.node.pod("pod1");
            let before = site.world(&[&pod]);
            let error = site.add(&pod).expect_error(103);
            assert!(error.msg.contains("POSTROUTING"), "{error:?}");
            site.world(&[&pod]).must_be(&before, "after a failed ADD");
        }
    }
}

/// A node whose alternatives were switched while pods ran.
#[test]
fn rules_in_nf_tables_are_removed_though_the_programs_are_those_of_old() {
    let (old, new) = (path_with("legacy"), path_with("nft"));
    let site = Site::new(bridge_with_all());
    let pod = site.node.pod("pod1");
    let _ = site.run(&with_path(site.call("ADD", &pod), &new)).ok();
    assert!(site.node.sh("iptables-nft-save -t nat").contains("MASQUERADE"));
    let _ = site.run(&with_path(site.call("DEL", &pod), &old)).ok();
    assert_eq!(rules(&site), Vec::<String>::new());
}

#[test]
fn rules_in_the_tables_of_old_are_removed_though_the_programs_are_those_of_nf_tables() {
    let site = Site::new(bridge_with_all());
    let pod = site.node.pod("pod1");
    let _ = site.run(&with_path(site.call("ADD", &pod), &path_with("legacy"))).ok();
    assert!(site.node.sh("iptables-legacy-save -t nat").contains("MASQUERADE"));
    // Where the system's programs are, those of both kinds are.
    let _ = site.del(&pod).ok();
    assert_eq!(rules(&site), Vec::<String>::new());
}

#[test]
fn rules_in_nf_tables_are_removed_without_any_program() {
    for conf in [bridge_with_all(), ptp_with_all()] {
        let site = Site::new(conf);
        let pod = site.node.pod("pod1");
        let _ = site.add(&pod).ok();
        // Asking the programs of old would make their tables, which then must be asked for.
        let saves = "iptables-nft-save -t nat; ip6tables-nft-save -t nat";
        assert!(site.node.sh(saves).contains("CNI-"));
        let reply = site.run(&site.call("DEL", &pod).env("PATH", "/nowhere"));
        let _ = reply.ok();
        assert_eq!(reply.stderr, "", "{reply}");
        assert!(!site.node.sh(saves).contains("CNI-"));
    }
}

/// What somebody else sends to a container's chain keeps it in being: then the programs tell.
#[test]
fn a_foreign_jump_to_the_chain_does_not_keep_ours() {
    let site = Site::new(bridge_with_all());
    let pod = site.node.pod("pod1");
    let result = site.add(&pod).ok();
    let before = rules(&site);
    let chain = before.iter().find_map(|line| line.strip_prefix(":")).expect("there is a chain");
    let chain = chain.split(' ').next().expect("a chain has a name");
    site.node.sh(&format!(
        "iptables-nft -t nat -N FOREIGN && iptables-nft -t nat -A POSTROUTING -j FOREIGN && \
         iptables-nft -t nat -A FOREIGN -d 198.51.100.1 -j {chain}"
    ));
    let conf = site.conf_with(&json!({"prevResult": result}));
    let _ = site.run(&site.call("DEL", &pod).conf(&conf)).ok();
    let left = rules(&site);
    assert!(left.iter().any(|line| line.contains("198.51.100.1")), "{left:?}");
    assert!(!left.iter().any(|line| line.contains("POSTROUTING")), "{left:?}");
}

/// iptables cuts comments off after 255 bytes, and with them the container's id.
#[test]
fn garbage_of_containers_with_long_ids_is_collected() {
    let site = Site::new(bridge_with_all());
    let (kept, stale) = ("k".repeat(250), "s".repeat(250));
    let pods = [site.node.pod("kept"), site.node.pod("stale")];
    let before = rules(&site);
    let _ = site.run(&site.call("ADD", &pods[0]).container(&kept)).ok();
    let with_kept = rules(&site);
    let _ = site.run(&site.call("ADD", &pods[1]).container(&stale)).ok();
    assert_ne!(rules(&site), with_kept);

    let valid: Value = json!([{"containerID": kept, "ifname": "eth0"}]);
    let keys = json!({"cniVersion": "1.1.0", "cni.dev/valid-attachments": valid});
    let call = site.call("GC", &pods[0]).conf(&site.conf_with(&keys));
    let _ = site.run(&call.unset("CNI_NETNS").unset("CNI_IFNAME").unset("CNI_CONTAINERID")).ok();
    assert_eq!(rules(&site), with_kept);
    let _ = site.run(&site.call("DEL", &pods[0]).container(&kept)).ok();
    assert_eq!(rules(&site), before);
}

/// Longer than one piece of what the kernel tells, so that whoever changes something meanwhile interrupts it.
#[test]
fn by_nf_tables_among_many_rules_while_others_change_their_own() {
    let mut conf = bridge_with_all();
    conf["ipMasqBackend"] = json!("nftables");
    let site = Site::new(conf);
    let rules: String = (0..2000)
        .map(|it| {
            let (high, low) = (it / 250, it % 250);
            format!("add rule inet cni_plugins_masquerade masq_checks ip saddr 10.7.{high}.{low} ip daddr != 10.7.0.0/16 masquerade comment \"of another {it}\"\n")
        })
        .collect();
    let file = site.node.home().join("rules.nft");
    std::fs::write(&file, rules).expect("there is room");
    site.node.sh(&format!("nft -f {}", file.display()));
    let listed = || site.node.sh("nft list chain inet cni_plugins_masquerade masq_checks");
    let before = listed();
    let pods = ["one", "two", "three"].map(|it| site.node.pod(it));
    let churn = Churn::start(&site.node);
    for pod in &pods {
        let _ = site.add(pod).ok();
    }
    drop(churn);
    assert_eq!(listed().lines().count(), before.lines().count() + 2 * pods.len());
    let churn = Churn::start(&site.node);
    for pod in &pods {
        let _ = site.del(pod).ok();
    }
    drop(churn);
    assert_eq!(listed(), before);
}
