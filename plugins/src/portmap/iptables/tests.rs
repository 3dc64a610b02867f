use cni::decode::{Fields, Problems};
use proptest::prelude::*;
use runner::{Output, Program};
use serde_json::{Value, json};

use super::saved::chains_of;
use super::*;
use crate::iptables::FAMILIES;

fn conf(keys: Value, mappings: &Value) -> Conf {
    let mut document = keys;
    document["runtimeConfig"] = json!({"portMappings": mappings});
    let problems = Problems::default();
    let conf = crate::portmap::conf::read(&Fields::root(document.as_object().unwrap(), &problems));
    assert_eq!(problems.into_vec(), []);
    conf
}

fn mapping(protocol: &str, host_port: u16, host_ip: &str) -> Value {
    json!({"hostPort": host_port, "containerPort": 80, "protocol": protocol, "hostIP": host_ip})
}

fn rules_of(conf: &Conf, address: &str) -> Rules {
    Rules::new(conf, Identity::new("n1", "cid1"), address.parse().unwrap())
}

fn texts(rules: &[InChain]) -> Vec<String> {
    rules.iter().map(ToString::to_string).collect()
}

fn rules(keys: Value, mappings: &Value, address: &str) -> Rules {
    rules_of(&conf(keys, mappings), address)
}

const CHAIN: &str = "CNI-DN-ca7a875c2b85fc44a8551";
const COMMENT: &str = r#"-m comment --comment "dnat name: \"n1\" id: \"cid1\"""#;

#[test]
fn rules_are_in_the_words_of_iptables_save() {
    let mappings = json!([mapping("tcp", 8080, ""), mapping("udp", 53, "192.0.2.1")]);
    let four = rules(json!({}), &mappings, "10.1.0.2/24");
    assert_eq!(four.chains, ["CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ", "CNI-HOSTPORT-DNAT"]);
    assert_eq!(
        texts(&four.entries),
        [
            format!("CNI-HOSTPORT-DNAT -p tcp {COMMENT} -m multiport --dports 8080 -j {CHAIN}"),
            format!("CNI-HOSTPORT-DNAT -p udp {COMMENT} -m multiport --dports 53 -j {CHAIN}"),
        ]
    );
    let own = |rest: &[&str]| rest.iter().map(|it| format!("{CHAIN} {it}")).collect::<Vec<_>>();
    assert_eq!(
        texts(&four.own),
        own(&[
            "-s 10.1.0.0/24 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK",
            "-s 127.0.0.1/32 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK",
            "-p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.1.0.2:80",
            "-s 10.1.0.0/24 -d 192.0.2.1/32 -p udp -m udp --dport 53 -j CNI-HOSTPORT-SETMARK",
            "-s 127.0.0.1/32 -d 192.0.2.1/32 -p udp -m udp --dport 53 -j CNI-HOSTPORT-SETMARK",
            "-d 192.0.2.1/32 -p udp -m udp --dport 53 -j DNAT --to-destination 10.1.0.2:80",
        ])
    );
    let six = rules(json!({"masqAll": true}), &mappings, "fd00::2/64");
    assert_eq!(
        texts(&six.own),
        own(&[
            "-p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK",
            "-p tcp -m tcp --dport 8080 -j DNAT --to-destination [fd00::2]:80",
        ])
    );
    assert_eq!(six.entries, four.entries);
}

#[test]
fn what_is_masqueraded_is_marked_by_a_bit_or_by_somebody_elses_chain() {
    let mappings = json!([mapping("tcp", 8080, "")]);
    let bit = rules(json!({"markMasqBit": 31}), &mappings, "10.1.0.2/24");
    assert!(bit.shared[0].1.to_string().ends_with("--set-xmark 0x80000000/0x80000000"));
    assert!(bit.shared[1].1.to_string().contains("--mark 0x80000000/0x80000000"));
    assert_eq!(bit.shared[2].0, "-I");
    let chain = rules(json!({"externalSetMarkChain": "KUBE-MARK-MASQ"}), &mappings, "10.1.0.2/24");
    assert_eq!(chain.chains, ["CNI-HOSTPORT-DNAT"]);
    assert!(chain.own[0].to_string().ends_with("-j KUBE-MARK-MASQ"));
    let none = rules(json!({"snat": false}), &mappings, "10.1.0.2/24");
    assert_eq!((none.chains.len(), none.own.len()), (1, 1));
}

#[test]
fn conditions_follow_the_ports() {
    let keys =
        json!({"conditionsV4": ["!", "-s", "10.0.0.0/8", "-m", "comment", "--comment", "a \"b\""]});
    let mappings = json!([mapping("tcp", 8080, "")]);
    let four = rules(keys.clone(), &mappings, "10.1.0.2/24");
    let end =
        format!("--dports 8080 ! -s 10.0.0.0/8 -m comment --comment \"a \\\"b\\\"\" -j {CHAIN}");
    assert!(four.entries[0].to_string().ends_with(&end), "{}", four.entries[0]);
    assert!(!rules(keys, &mappings, "fd00::2/64").is_conditional);
}

/// Table nat with these rules in it, among others.
fn saved(rules: &Rules) -> String {
    let declared = rules.chains.iter().copied().chain([CHAIN]);
    let declared: String = declared.map(|it| format!(":{it} - [0:0]\n")).collect();
    let shared = rules.shared.iter().map(|(_, rule)| rule);
    let all = shared.chain(&rules.own).chain(&rules.entries);
    let all: String = all.map(|rule| format!("-A {rule}\n")).collect();
    format!(
        "*nat\n:POSTROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n{declared}-A PREROUTING -j KUBE-SERVICES\n{all}COMMIT\n"
    )
}

#[test]
fn a_fresh_table_gets_all_and_a_later_container_its_own_alone() {
    let first = rules(json!({}), &json!([mapping("tcp", 8080, "")]), "10.1.0.2/24");
    let lines = first.lines("", &|_| false);
    assert_eq!(lines.iter().filter(|it| it.starts_with("-N ")).count(), 4);
    assert!(
        lines.contains(&"-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT".into())
    );
    let second = Rules::new(
        &conf(json!({}), &json!([mapping("tcp", 8081, "")])),
        Identity::new("n1", "cid2"),
        "10.1.0.3/24".parse().unwrap(),
    );
    let lines = second.lines(&saved(&first), &|_| false);
    assert_eq!(lines[0], format!("-N {}", second.identity.chain));
    assert_eq!(lines.len(), 1 + second.own.len() + second.entries.len());
}

#[test]
fn what_an_earlier_add_made_goes() {
    let before = rules(json!({}), &json!([mapping("udp", 1, "")]), "10.1.0.9/24");
    let after = rules(json!({}), &json!([mapping("tcp", 8080, "")]), "10.1.0.2/24");
    let lines = after.lines(&saved(&before), &|_| false);
    assert_eq!(lines[..2], [format!("-D {}", before.entries[0]), format!("-F {CHAIN}")]);
    assert_eq!(lines.len(), 2 + after.own.len() + after.entries.len());
}

#[test]
fn what_other_interfaces_made_stays() {
    let of = |ports: &[u16], address| {
        let mappings: Vec<Value> = ports.iter().map(|port| mapping("tcp", *port, "")).collect();
        rules(json!({}), &json!(mappings), address)
    };
    let many: Vec<u16> = (1000..1017).collect();
    let [first, second] = [of(&many, "10.1.0.2/24"), of(&[8080, 8081], "10.1.0.22/24")];
    let is_firsts = |it: IpAddr| it == IpAddr::from([10, 1, 0, 2]);
    let is_seconds = |it: IpAddr| it == IpAddr::from([10, 1, 0, 22]);
    let lines = second.lines(&saved(&first), &is_firsts);
    let all = texts(&[&first.own[..], &second.own, &second.entries].concat());
    assert_eq!(lines[0], format!("-F {CHAIN}"));
    assert_eq!(lines[1..], all.iter().map(|it| format!("-A {it}")).collect::<Vec<_>>());
    // Both in the chain.
    let rest = [&second.own[..], &second.entries].concat();
    let rest: String = rest.iter().map(|rule| format!("-A {rule}\n")).collect();
    let both = saved(&first).replace("COMMIT\n", &format!("{rest}COMMIT\n"));
    assert_eq!(first.problem(&both, &is_seconds), Ok(&[][..]));
    assert_eq!(second.problem(&both, &is_firsts), Ok(&[][..]));
    assert!(second.problem(&both, &|_| false).is_err());
    for line in rest.lines().filter(|it| it.contains(CHAIN)) {
        let without = both.replace(&format!("{line}\n"), "");
        assert!(second.problem(&without, &is_firsts).is_err(), "{line}");
    }
    let removed = removal_lines(&both, CHAIN, &is_firsts);
    let kept = texts(&first.own).into_iter().map(|it| format!("-A {it}"));
    let expected = [format!("-D {}", second.entries[0]), format!("-F {CHAIN}")];
    assert_eq!(removed, expected.into_iter().chain(kept).collect::<Vec<_>>());
    assert_eq!(removal_lines(&saved(&first), CHAIN, &is_firsts), [""; 0]);
    // One that comes again for another address replaces its own.
    let moved = of(&[8082], "10.1.0.23/24");
    let lines = moved.lines(&both, &is_firsts);
    assert_eq!(lines[..2], [format!("-D {}", second.entries[0]), format!("-F {CHAIN}")]);
    assert_eq!(lines.len(), 2 + first.own.len() + moved.own.len() + moved.entries.len());
}

#[test]
fn what_is_whole_has_no_problem_and_every_change_is_seen() {
    let wanted =
        rules(json!({}), &json!([mapping("tcp", 8080, ""), mapping("udp", 53, "")]), "10.1.0.2/24");
    let whole = saved(&wanted);
    assert_eq!(wanted.problem(&whole, &|_| false), Ok(&[][..]));
    for line in whole.lines().filter(|it| it.contains("CNI-") && !it.starts_with(":CNI-HOSTPORT")) {
        let without = whole.replace(&format!("{line}\n"), "");
        assert!(wanted.problem(&without, &|_| false).is_err(), "{line}");
    }
    let more = whole.replace("COMMIT", &format!("-A {CHAIN} -j ACCEPT\nCOMMIT"));
    assert!(wanted.problem(&more, &|_| false).unwrap_err().contains("has other rules"));
    // Conditions are iptables' own to compare.
    let keys = json!({"conditionsV4": ["-i", "eth0"]});
    let conditional = rules(keys, &json!([mapping("tcp", 8080, "")]), "10.1.0.2/24");
    assert_eq!(conditional.problem(&saved(&conditional), &|_| false), Ok(&conditional.entries[..]));
}

#[test]
fn removal_takes_the_chain_and_what_leads_there() {
    let mine = rules(json!({}), &json!([mapping("tcp", 8080, "")]), "10.1.0.2/24");
    let lines = removal_lines(&saved(&mine), CHAIN, &|_| false);
    assert_eq!(
        lines,
        [format!("-D {}", mine.entries[0]), format!("-F {CHAIN}"), format!("-X {CHAIN}")]
    );
    assert_eq!(removal_lines("*nat\nCOMMIT\n", CHAIN, &|_| false), [""; 0]);
}

#[test]
fn holders_are_read_from_the_rules() {
    let mine = rules(
        json!({}),
        &json!([mapping("tcp", 8080, "192.0.2.1"), mapping("udp", 53, "")]),
        "10.1.0.2/24",
    );
    let told: Vec<String> = held(&saved(&mine))
        .iter()
        .map(|it| format!("{} {} {}", it.key, it.to, it.holder))
        .collect();
    let holder = "container \"cid1\" (network \"n1\")";
    assert_eq!(
        told,
        [format!("8080/tcp of 192.0.2.1 10.1.0.2 {holder}"), format!("53/udp 10.1.0.2 {holder}")]
    );
    // Nothing leads to a chain that the rules lost: nobody holds anything.
    let without = saved(&mine).replace("-A CNI-HOSTPORT-DNAT", "-A OTHER");
    assert_eq!(held(&without), []);
}

#[test]
fn a_comment_that_was_cut_tells_the_beginning() {
    let long = "c".repeat(250);
    let all = conf(json!({}), &json!([mapping("tcp", 1, "")]));
    let mine = Rules::new(&all, Identity::new("n1", &long), "10.1.0.2/24".parse().unwrap());
    let chain = &mine.identity.chain;
    let text = saved(&mine).replace(CHAIN, chain);
    let [it] = held(&text).try_into().unwrap();
    assert!(long.starts_with(&it.holder.container_id) && it.holder.container_id.len() > 200);
    assert_eq!(chains_of(&text, "n1"), [chain]);
    assert!(chains_of(&text, "n").is_empty());
}

/// Answers each call with the next of a list, and remembers the programs and their input.
#[derive(Default)]
struct Script {
    answers: Vec<(i32, String, String)>,
    calls: Vec<(String, String)>,
}

impl Runner for Script {
    fn run(&mut self, program: &Program<'_>) -> Result<Output, runner::Error> {
        use std::os::unix::process::ExitStatusExt;
        let stdin = String::from_utf8_lossy(program.stdin).into_owned();
        self.calls.push((program.file.display().to_string(), stdin));
        let (code, stdout, stderr) = self.answers.remove(0);
        let status = std::process::ExitStatus::from_raw(code << 8);
        Ok(Output { process_id: 1, status, stdout: stdout.into(), stderr: stderr.into() })
    }
}

fn answer(code: i32, stdout: &str, stderr: &str) -> (i32, String, String) {
    (code, stdout.into(), stderr.into())
}

fn set_up(script: &mut Script, rules: &Rules) -> Result<(), Error> {
    let mut programs = Programs { runner: script, lock: None };
    programs.set_up(
        FAMILIES[0],
        &mut KernelTables::default(),
        Seen::of(String::new()),
        rules,
        &Dead::default(),
        &|_| false,
    )
}

#[test]
fn a_fresh_node_takes_one_program() {
    let mut script = Script { answers: vec![answer(0, "", "")], calls: vec![] };
    set_up(&mut script, &rules(json!({}), &json!([mapping("tcp", 1, "")]), "10.1.0.2/24")).unwrap();
    let [(program, input)] = script.calls.as_slice() else { panic!("{:?}", script.calls) };
    assert_eq!(program, "iptables-restore");
    assert!(input.starts_with("*nat\n-N CNI-HOSTPORT-SETMARK\n") && !input.contains("\n:"));
}

#[test]
fn a_table_that_was_not_read_is_compared_by_the_program_that_changes_it() {
    let mut script = Script::default();
    let rules = rules(json!({}), &json!([mapping("tcp", 1, "")]), "10.1.0.2/24");
    let restore = |script: &mut Script| {
        let mut programs = Programs { runner: script, lock: None };
        programs.set_up(
            FAMILIES[0],
            &mut KernelTables::default(),
            Seen::Free,
            &rules,
            &Dead::default(),
            &|_| false,
        )
    };
    script.answers.push(answer(0, "", ""));
    restore(&mut script).unwrap();
    let [(program, input)] = script.calls.as_slice() else { panic!("{:?}", script.calls) };
    assert_eq!(program, "iptables-restore");
    let verbs: Vec<&str> = input.lines().map(|line| line.split(' ').next().unwrap()).collect();
    let expected = [&["*nat"][..], &["-C"; 5], &["-N"], &["-A"; 4], &["COMMIT"]].concat();
    assert_eq!(verbs, expected);
    // What is refused is read.
    let mut script = Script::default();
    let whole = saved(&rules);
    script.answers.extend([answer(1, "", "Bad rule"), answer(0, &whole, ""), answer(0, "", "")]);
    restore(&mut script).unwrap();
    assert_eq!(script.calls[1].0, "iptables-save");
    assert!(script.calls[2].1.starts_with("*nat\n-D CNI-HOSTPORT-DNAT"), "{}", script.calls[2].1);
}

#[test]
fn who_makes_the_shared_chains_meanwhile_is_seen() {
    let rules = rules(json!({}), &json!([mapping("tcp", 1, "")]), "10.1.0.2/24");
    let shared = "*nat\n:CNI-HOSTPORT-DNAT - [0:0]\n:CNI-HOSTPORT-MASQ - [0:0]\n:CNI-HOSTPORT-SETMARK - [0:0]\nCOMMIT\n";
    let answers =
        vec![answer(1, "", "Chain already exists"), answer(0, shared, ""), answer(0, "", "")];
    let mut script = Script { answers, calls: vec![] };
    set_up(&mut script, &rules).unwrap();
    assert_eq!(script.calls[1].0, "iptables-save");
    assert!(script.calls[2].1.starts_with("*nat\n-A CNI-HOSTPORT-SETMARK"));
}

#[test]
fn what_is_refused_again_and_again_is_an_error() {
    let answers =
        (0..7).map(|it| if it % 2 == 0 { answer(2, "", "no") } else { answer(0, "", "") });
    let mut script = Script { answers: answers.collect(), calls: vec![] };
    let rules = rules(json!({}), &json!([mapping("tcp", 1, "")]), "10.1.0.2/24");
    let error = set_up(&mut script, &rules).unwrap_err();
    assert_eq!(cni::ErrorObject::from(error).code, 103);
    assert!(script.answers.is_empty());
}

proptest! {
    /// Every port is in exactly one rule of its protocol, none has more than multiport takes, and what is read back
    /// is what was published.
    #[test]
    fn ports_are_spread_over_rules_and_read_again(ports in prop::collection::btree_set((0_usize..3, 1_u16..), 0..70)) {
        let protocols = ["tcp", "udp", "sctp"];
        let mappings: Vec<Value> =
            ports.iter().map(|(protocol, port)| mapping(protocols[*protocol], *port, "")).collect();
        let rules = rules(json!({}), &json!(mappings), "10.1.0.2/24");
        let mut found = std::collections::BTreeSet::new();
        for rule in texts(&rules.entries) {
            let words: Vec<&str> = rule.split(' ').collect();
            let protocol = protocols.iter().position(|it| *it == words[2]).unwrap();
            let list = words[words.iter().position(|it| *it == "--dports").unwrap() + 1];
            prop_assert!(list.split(',').count() <= 15);
            for port in list.split(',') {
                prop_assert!(found.insert((protocol, port.parse::<u16>().unwrap())), "{port} twice");
            }
        }
        prop_assert_eq!(&found, &ports);
        let again: std::collections::BTreeSet<(usize, u16)> = held(&saved(&rules))
            .iter()
            .map(|it| (protocols.iter().position(|word| *word == it.key.protocol.word()).unwrap(), it.key.port))
            .collect();
        prop_assert_eq!(&again, &ports);
    }
}
