//! The nf_tables client against rules that the iptables programs made.

use netlink::nftables::Jump;
use nix::errno::Errno;
use ruleset::nft::{Family, Table};

use crate::space::{self, nf_tables};

const NAT: Table<'_> = Table { family: Family::Ip, name: "nat" };
const NAT_V6: Table<'_> = Table { family: Family::Ip6, name: "nat" };

fn run(file: &str, input: &str) -> String {
    let args: &[&str] = if file.ends_with("-restore") { &["--noflush"] } else { &[] };
    space::run(file, args, input)
}

fn handles(jumps: &[Jump]) -> Vec<u64> {
    jumps.iter().map(|jump| jump.handle).collect()
}

#[test]
fn jumps_are_found_with_their_sources() {
    let mut client = nf_tables();
    let comment = r#"-m comment --comment "name: \"n\" id: \"c\"""#;
    let sources = ["10.1.0.2/32", "10.1.0.0/16", "10.1.2.0/23", "0.0.0.0/1"];
    let mut rules: Vec<String> =
        sources.iter().map(|source| format!("-s {source} {comment} -j CNI-a")).collect();
    rules.extend([
        "-s 10.9.0.1/32 -j CNI-b".to_owned(),
        "-s 10.9.0.1/32 -j ACCEPT".to_owned(),
        "! -s 10.9.0.1/32 -j CNI-a".to_owned(),
        "-d 10.9.0.1/32 -p tcp --dport 80 -j CNI-a".to_owned(),
        "-d 10.9.0.1/32 -s 10.9.0.2/32 -p tcp --dport 80 -j CNI-a".to_owned(),
        "-s 10.9.0.3/32 -g CNI-a".to_owned(),
    ]);
    let lines: String = rules.iter().map(|rule| format!("-A POSTROUTING {rule}\n")).collect();
    run("iptables-restore", &format!("*nat\n-N CNI-a\n-N CNI-b\n{lines}COMMIT\n"));

    assert!(client.has_chain(NAT, "CNI-a").unwrap());
    assert!(!client.has_chain(NAT, "CNI-c").unwrap());
    assert!(!client.has_chain(NAT_V6, "CNI-a").unwrap());
    let jumps = client.jumps(NAT, "POSTROUTING", "CNI-a").unwrap();
    let found: Vec<Option<String>> =
        jumps.iter().map(|jump| jump.source.map(|source| source.to_string())).collect();
    let expected: Vec<Option<String>> = sources
        .iter()
        .map(|source| Some((*source).to_owned()))
        .chain([None, None, Some("10.9.0.2/32".to_owned()), Some("10.9.0.3/32".to_owned())])
        .collect();
    assert_eq!(found, expected);
    assert!(client.jumps(NAT, "PREROUTING", "CNI-a").unwrap().is_empty());
    assert!(client.jumps(NAT_V6, "POSTROUTING", "CNI-a").unwrap().is_empty());
}

#[test]
fn sources_of_ipv6_are_read() {
    let mut client = nf_tables();
    let sources = ["fd00::2/128", "fd00::/64", "fd00:0:0:8000::/49"];
    let lines: String =
        sources.iter().map(|source| format!("-A POSTROUTING -s {source} -j CNI-a\n")).collect();
    run("ip6tables-restore", &format!("*nat\n-N CNI-a\n{lines}COMMIT\n"));
    let jumps = client.jumps(NAT_V6, "POSTROUTING", "CNI-a").unwrap();
    let found: Vec<String> = jumps.iter().map(|jump| jump.source.unwrap().to_string()).collect();
    assert_eq!(found, sources);
}

#[test]
fn a_chain_goes_with_its_rules_and_what_leads_there() {
    let mut client = nf_tables();
    run("iptables-restore", "*nat\n-A POSTROUTING -s 10.1.0.9/32 -j ACCEPT\nCOMMIT\n");
    let before = run("iptables-save", "");
    let rules = "-A CNI-a -d 10.1.0.0/24 -j ACCEPT\n-A CNI-a -j MASQUERADE\n\
                 -A POSTROUTING -s 10.1.0.2/32 -j CNI-a\n-A POSTROUTING -s 10.1.0.3/32 -j CNI-a\n";
    run("iptables-restore", &format!("*nat\n-N CNI-a\n{rules}COMMIT\n"));
    let jumps = client.jumps(NAT, "POSTROUTING", "CNI-a").unwrap();
    assert_eq!(jumps.len(), 2);

    client.delete(NAT, ("POSTROUTING", &handles(&jumps)[..1]), None).unwrap();
    assert_eq!(client.jumps(NAT, "POSTROUTING", "CNI-a").unwrap(), jumps[1..]);
    client.delete(NAT, ("POSTROUTING", &handles(&jumps)[1..]), Some("CNI-a")).unwrap();
    let without_comments = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(without_comments(&run("iptables-save", "")), without_comments(&before));
}

#[test]
fn a_refused_deletion_changes_nothing() {
    let mut client = nf_tables();
    let rules = "-A POSTROUTING -s 10.1.0.2/32 -j CNI-a\n-A PREROUTING -j CNI-a\n";
    run("iptables-restore", &format!("*nat\n-N CNI-a\n{rules}COMMIT\n"));
    let jumps = client.jumps(NAT, "POSTROUTING", "CNI-a").unwrap();
    let error = client.delete(NAT, ("POSTROUTING", &handles(&jumps)), Some("CNI-a")).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EBUSY));
    assert!(error.to_string().contains("CNI-a"), "{error}");
    assert_eq!(client.jumps(NAT, "POSTROUTING", "CNI-a").unwrap(), jumps);
    let error = client.delete(NAT, ("POSTROUTING", &[12345]), None).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ENOENT));
}

#[test]
fn long_lists_are_read_to_their_end() {
    let mut client = nf_tables();
    let lines: String = (0..3000)
        .map(|n| format!("-A POSTROUTING -s 10.1.{}.{}/32 -j CNI-a\n", n / 256, n % 256))
        .collect();
    run("iptables-restore", &format!("*nat\n-N CNI-a\n{lines}COMMIT\n"));
    let jumps = client.jumps(NAT, "POSTROUTING", "CNI-a").unwrap();
    assert_eq!(jumps.len(), 3000);
    assert_eq!(jumps[2999].source, Some("10.1.11.183/32".parse().unwrap()));
}
