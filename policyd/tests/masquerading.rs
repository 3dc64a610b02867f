//! The program masquerades, stops when it is no longer told to, and cleans up. Needs root,
//! iptables, ipset and unshare.

use std::fs;
use std::time::Duration;

use runner::{OsRunner, Program, Runner};

/// Runs policyd in a network namespace of its own, until the chain is there or gone, and prints the
/// tables after each step. Each wait ends after 10 s.
const STEPS: &str = r#"
policyd=$0; folder=$1
tables() { iptables-save -t nat; ip6tables-save -t nat; nft -s list table inet podwire-masquerade 2>&1 || true; }
count() { tables | grep -c -e "$1 \?PODWIRE-MASQUERADE" || true; }
# Of iptables, and of nf_tables.
until_chains() {
    tries=0
    while [ "$(count ^:)/$(count chain)" != "$1" ] && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
}
run() {
    "$policyd" --manifests "$folder/manifests" --node-name n --listen off --gate off --run-dir "$folder/run" \
        --masquerade-config "$folder/config" "$@" &
    pid=$!
}
finish() { kill $pid; wait $pid; echo "--- $1"; tables; }
run --masquerade --enable-ipv6 --backend iptables; until_chains 2/0; finish on
run --masquerade --enable-ipv6 --backend nftables; until_chains 0/2; finish over
run; until_chains 0/0; finish off
run --masquerade --enable-ipv6=true --backend iptables; until_chains 2/0; finish again
"$policyd" cleanup; echo "--- cleaned"; tables
"#;

#[test]
fn masquerading_is_turned_on_and_off() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("manifests")).unwrap();
    fs::write(folder.path().join("config"), "nonMasqueradeCIDRs: [10.0.0.0/8, 'fd00::/8']")
        .unwrap();
    let policyd = env!("CARGO_BIN_EXE_policyd");
    let args = ["--net", "/bin/sh", "-euc", STEPS, policyd, folder.path().to_str().unwrap()];
    let timeout = Some(Duration::from_secs(60));
    let program = Program { file: "unshare".into(), args: &args, timeout, ..Program::default() };
    let output = OsRunner.run(&program).unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{log}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let steps: Vec<_> = printed.split("--- ").skip(1).collect();
    let [on, over, off, again, cleaned] = steps[..] else { panic!("{printed}\n{log}") };
    for step in [on, again] {
        assert_eq!(step.matches("-j PODWIRE-MASQUERADE").count(), 2, "{step}\n{log}");
        assert!(step.contains("-d 10.0.0.0/8") && step.contains("-d fd00::/8"), "{step}\n{log}");
    }
    assert_eq!(over.matches("goto PODWIRE-MASQUERADE-").count(), 2, "{over}\n{log}");
    assert!(over.contains("ip daddr 10.0.0.0/8") && !over.contains("-j PODWIRE"), "{over}\n{log}");
    for step in [off, cleaned] {
        assert!(!step.contains("PODWIRE"), "{step}\n{log}");
        assert!(step.contains("No such file"), "{step}\n{log}");
    }
    assert!(log.contains("masquerading all but what goes to 10.0.0.0/8, fd00::/8"), "{log}");
}
