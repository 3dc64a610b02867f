//! What kube-proxy has left goes once proxyd serves.

use lab::proxyd;

use crate::client::must_reach;
use crate::daemon::{Folder, wait_ready};
use crate::site::Site;

/// What of kube-proxy's and of others' is in a table of iptables.
const NAT: &str = r#"*nat
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-MARK-DROP - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SEP-OQLJSLLLKYQOGE4T - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-TCOU7JCQXEZGVUNU - [0:0]
:OTHERS - [0:0]
-A PREROUTING -m comment --comment "of others' \"own\" -j KUBE-SERVICES" -j OTHERS
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MASQUERADE
-A KUBE-SERVICES -p tcp -m comment --comment "n/s:t cluster IP" -m tcp --dport 9 -j KUBE-SVC-TCOU7JCQXEZGVUNU
-A KUBE-SERVICES -m comment --comment "must be last" -j KUBE-NODEPORTS
-A KUBE-SEP-OQLJSLLLKYQOGE4T -j KUBE-MARK-MASQ
-A KUBE-SVC-TCOU7JCQXEZGVUNU -m comment --comment "n/s:t" -j KUBE-SEP-OQLJSLLLKYQOGE4T
-A OTHERS -p tcp -m tcp --dport 9 -j ACCEPT
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-ROUTER-FORWARD - [0:0]
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -j KUBE-ROUTER-FORWARD
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
COMMIT
*mangle
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-PROXY-CANARY - [0:0]
COMMIT
"#;

/// What of kube-proxy's is printed.
const ITS: [&str; 7] = [
    "KUBE-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-POSTROUTING",
    "KUBE-MARK-MASQ",
    "KUBE-S",
    "KUBE-FORWARD",
    "KUBE-PROXY-CANARY",
];

/// What iptables prints, without counters and times.
fn saved(site: &Site, programs: &str) -> Vec<String> {
    let text = site.node.sh(&format!("{programs}-save"));
    let lines = text.lines().filter(|it| !it.starts_with('#'));
    lines.map(|it| it.split(" [").next().unwrap_or_default().to_owned()).collect()
}

/// The lines of others.
fn of_others(lines: &[String]) -> Vec<String> {
    let quoted = |line: &str| line.contains("of others");
    let is_its = |line: &&String| !quoted(line) && ITS.iter().any(|it| line.contains(it));
    lines.iter().filter(|it| !is_its(it)).cloned().collect()
}

#[test]
fn what_kube_proxy_has_left_goes_and_nothing_else() {
    let mut site = Site::new(true);
    site.pods(["a", "b"]);
    let kinds = ["iptables-nft", "iptables-legacy", "ip6tables-nft"];
    for programs in kinds {
        site.node.sh(&format!("{programs}-restore --noflush <<'END'\n{NAT}END"));
    }
    site.node.sh(
        "nft add table ip kube-proxy; nft add chain ip kube-proxy services; nft add table ip6 kube-proxy
         nft add table ip others; nft add chain ip others c; nft add table inet kube-proxy",
    );
    let before = kinds.map(|it| saved(&site, it));
    let takeover = format!("{} takeover 2>&1", proxyd().display());
    // Not while nobody else serves.
    site.node.sh(&format!("{} cleanup", proxyd().display()));
    let refused = site.node.try_sh(&takeover);
    assert!(!refused.status.success() && refused.stdout.contains("is not there"), "{refused:?}");
    assert_eq!(kinds.map(|it| saved(&site, it)), before);
    assert!(site.tables().contains("table ip kube-proxy"));
    let folder = Folder::with(&site, &["a"]);
    let mut daemon = folder.start(&site);
    wait_ready(&site, &mut daemon);
    site.node.sh(&takeover);
    for (programs, before) in kinds.into_iter().zip(before) {
        let wanted = of_others(&before);
        assert!(wanted.len() < before.len());
        assert_eq!(saved(&site, programs), wanted, "{programs}");
    }
    let tables = site.node.sh("nft list tables");
    assert!(!tables.contains("table ip kube-proxy") && !tables.contains("table ip6 kube-proxy"));
    for table in ["ip others", "inet kube-proxy", "ip podwire-proxy", "ip6 podwire-proxy"] {
        assert!(tables.contains(&format!("table {table}\n")), "{tables}");
    }
    assert_eq!(must_reach(site.pod("b"), site.at("service", 80)).0, "a");
    // There is nothing left to do. What the kernel was told is told as long as it stands.
    let opened = "net.ipv4.conf.all.route_localnet is still 1";
    assert!(!site.node.sh(&takeover).contains(opened));
    site.node.sh("sysctl -qw net.ipv4.conf.all.route_localnet=1");
    assert!(site.node.sh(&takeover).contains(opened));
}
