use runner::{Output, Program};

use super::*;

fn identity() -> Identity {
    Identity::new("n1", "cid1")
}

fn rules(addresses: &[&str]) -> Rules {
    let addresses: Vec<IpNetwork> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Rules::new(FAMILIES[0], &identity(), &addresses)
}

/// The nat table with the rules for `addresses` in it, among others.
fn saved(addresses: &[&str]) -> String {
    let rules = rules(addresses);
    let lines: Vec<String> = rules
        .accept
        .iter()
        .chain([&rules.masquerade])
        .chain(&rules.jumps)
        .map(|r| format!("-A {r}"))
        .collect();
    format!(
        "*nat\n:POSTROUTING ACCEPT [0:0]\n:{} - [0:0]\n:CNI-other - [0:0]\n-A POSTROUTING -s 1.2.3.4/32 -j CNI-other\n{}\nCOMMIT\n",
        identity().chain,
        lines.join("\n")
    )
}

#[test]
fn nothing_is_missing_from_what_is_whole() {
    assert!(missing_lines(&saved(&["10.1.0.2/24"]), &rules(&["10.1.0.2/24"])).is_empty());
}

#[test]
fn a_second_interfaces_network_comes_before_the_masquerading() {
    let wanted = rules(&["10.2.0.2/24"]);
    let lines = missing_lines(&saved(&["10.1.0.2/24"]), &wanted);
    assert_eq!(lines, [format!("-I {}", wanted.accept[0]), format!("-A {}", wanted.jumps[0])]);
}

#[test]
fn a_chain_that_an_interrupted_reference_left_is_completed() {
    let wanted = rules(&["10.1.0.2/24"]);
    let saved = format!("*nat\n:{} - [0:0]\nCOMMIT\n", identity().chain);
    let lines = missing_lines(&saved, &wanted);
    assert_eq!(lines.len(), 3);
    assert!(!lines.iter().any(|line| line.starts_with("-N")));
}

#[test]
fn removal_takes_all_jumps_and_the_chain_and_nothing_else() {
    let chain = identity().chain;
    let legacy = format!("-A POSTROUTING -s 10.1.0.0/24 -m comment --comment \"x\" -j {chain}\n");
    let text = saved(&["10.1.0.2/24"]).replace("COMMIT\n", &legacy);
    let lines = removal_lines(&text, &chain, Which::AllBut(&[]));
    assert_eq!(lines.len(), 4);
    assert!(lines[..2].iter().all(|line| line.starts_with("-D POSTROUTING -s 10.1.0.")));
    assert_eq!(lines[2..], [format!("-F {chain}"), format!("-X {chain}")]);
    assert!(removal_lines("*nat\nCOMMIT\n", &chain, Which::AllBut(&[])).is_empty());
}

#[test]
fn another_interface_of_the_container_keeps_its_masquerading() {
    let chain = identity().chain;
    let text = saved(&["10.1.0.2/24", "10.2.0.2/24"]);
    let second: [IpNetwork; 1] = ["10.2.0.2/24".parse().unwrap()];
    let lines = removal_lines(&text, &chain, Which::Only(&second));
    assert_eq!(lines, [format!("-D {}", rules(&["10.2.0.2/24"]).jumps[0])]);
    let both = [second[0], "10.1.0.2/24".parse().unwrap()];
    assert_eq!(
        removal_lines(&text, &chain, Which::Only(&both)),
        removal_lines(&text, &chain, Which::AllBut(&[]))
    );
}

#[test]
fn without_a_result_the_containers_other_addresses_keep_their_masquerading() {
    let chain = identity().chain;
    let text = saved(&["10.1.0.2/24", "10.2.0.2/24"]);
    let living = ["10.1.0.2/24".parse().unwrap()];
    let lines = removal_lines(&text, &chain, Which::AllBut(&living));
    assert_eq!(lines, [format!("-D {}", rules(&["10.2.0.2/24"]).jumps[0])]);
    assert!(removal_lines(&saved(&["10.1.0.2/24"]), &chain, Which::AllBut(&living)).is_empty());
}

#[test]
fn a_jump_from_the_whole_network_is_the_attachments_too() {
    let chain = identity().chain;
    let text =
        format!("*nat\n:{chain} - [0:0]\n-A POSTROUTING -s 10.1.0.0/24 -j {chain}\nCOMMIT\n");
    let lines = removal_lines(&text, &chain, Which::Only(&["10.1.0.2/24".parse().unwrap()]));
    assert_eq!(lines.len(), 3);
}

#[test]
fn chains_are_told_by_the_comments_of_their_network() {
    let other = Identity::new("n10", "cid2").chain;
    let renamed = saved(&["10.1.0.2/24"])
        .replace(&identity().chain, &other)
        .replace("cid1", "cid2")
        .replace("n1", "n10");
    let text = format!("{}{renamed}", saved(&["10.1.0.2/24"]));
    assert_eq!(chains(&text, "n1"), [identity().chain]);
    assert_eq!(chains(&text, "n10"), [other]);
    assert!(chains(&text, "n").is_empty());
}

#[test]
fn a_comment_that_iptables_cut_off_tells_its_chain() {
    let identity = Identity::new("n1", &"c".repeat(250));
    let comment = quoted_comment(&identity);
    let cut = &comment[..comment.len() - 20];
    let chain = &identity.chain;
    let text = format!("-A POSTROUTING -s 10.1.0.2/32 -m comment --comment {cut}\" -j {chain}\n");
    assert_eq!(chains(&text, "n1"), [chain]);
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

fn tool(script: &mut Script) -> Tool<'_> {
    Tool::new(script, WORK, FAMILIES[0].programs, None)
}

fn set_up(script: &mut Script, rules: &Rules) -> Result<(), Error> {
    set_up_family(tool(script), &mut KernelTables::default(), FAMILIES[0], rules)
}

fn answer(code: i32, stdout: &str, stderr: &str) -> (i32, String, String) {
    (code, stdout.into(), stderr.into())
}

#[test]
fn a_fresh_attachment_takes_one_program() {
    let mut script = Script { answers: vec![answer(0, "", "")], calls: vec![] };
    set_up(&mut script, &rules(&["10.1.0.2/24"])).unwrap();
    let [(program, input)] = script.calls.as_slice() else { panic!("{:?}", script.calls) };
    assert_eq!(program, "iptables-restore");
    assert!(input.starts_with(&format!("*nat\n-N {}\n-A ", identity().chain)));
    assert!(!input.contains("\n:"));
}

#[test]
fn a_failed_write_is_corrected_once_after_one_read() {
    let present = saved(&["10.1.0.2/24"]);
    let answers =
        vec![answer(1, "", "Chain already exists"), answer(0, &present, ""), answer(1, "", "no")];
    let mut script = Script { answers, calls: vec![] };
    let error = set_up(&mut script, &rules(&["10.2.0.2/24"])).unwrap_err();
    assert!(matches!(error, Error::ProgramFailed { .. }));
    assert_eq!(script.calls.len(), 3);
    assert!(script.calls[2].1.contains("-I CNI-"));
}

#[test]
fn a_busy_lock_is_worth_another_try() {
    let stderr = "Another app is currently holding the xtables lock. Stopped waiting after 10s.";
    let mut script = Script { answers: vec![answer(4, "", stderr)], calls: vec![] };
    let error = set_up(&mut script, &rules(&["10.1.0.2/24"])).unwrap_err();
    assert_eq!(cni::ErrorObject::from(error).code, 11);
}

const NFTABLES: Places = Places { nftables: true, legacy: false };

#[test]
fn a_chain_that_nothing_leads_to_is_garbage() {
    let saved = saved(&["10.1.0.2/24"]);
    let lines = saved.lines().filter(|line| !line.contains("POSTROUTING -s 10.1.0.2"));
    assert_eq!(chains(&lines.collect::<Vec<_>>().join("\n"), "n1"), [identity().chain]);
}

#[test]
fn a_foreign_goto_keeps_the_chain_but_not_our_jump() {
    let chain = identity().chain;
    let foreign = format!("-A POSTROUTING -s 10.9.9.9/32 -g {chain}\nCOMMIT\n");
    let text = saved(&["10.1.0.2/24"]).replace("COMMIT\n", &foreign);
    let own = ["10.1.0.2/24".parse().unwrap()];
    let lines = removal_lines(&text, &chain, Which::Only(&own));
    assert_eq!(lines, [format!("-D {}", rules(&["10.1.0.2/24"]).jumps[0])]);
}

#[test]
fn old_tables_have_programs_of_their_own_where_the_node_has_two_kinds() {
    let table = saved(&["10.1.0.2/24"]);
    let answers = vec![answer(0, &table, ""), answer(0, "", "")];
    let mut script = Script { answers, calls: vec![] };
    let mut look_in = |family: Family| Places { nftables: false, legacy: family.is_ipv4 };
    tear_down(&mut script, &identity().chain, Which::AllBut(&[]), &mut look_in).unwrap();
    let programs: Vec<&str> = script.calls.iter().map(|(program, _)| program.as_str()).collect();
    assert_eq!(programs, ["iptables-legacy-save", "iptables-legacy-restore"]);
}

#[test]
fn removal_reads_once_and_writes_only_where_there_is_something() {
    let answers = vec![
        answer(0, &saved(&["10.1.0.2/24"]), ""),
        answer(0, "", ""),
        answer(0, "*nat\nCOMMIT\n", ""),
    ];
    let mut script = Script { answers, calls: vec![] };
    tear_down(&mut script, &identity().chain, Which::AllBut(&[]), &mut |_| NFTABLES).unwrap();
    let programs: Vec<&str> = script.calls.iter().map(|(program, _)| program.as_str()).collect();
    assert_eq!(programs, ["iptables-save", "iptables-restore", "ip6tables-save"]);
}

#[test]
fn where_nothing_is_left_no_program_is_started() {
    let answers = vec![answer(0, &saved(&["10.1.0.2/24"]), ""), answer(0, "", "")];
    let mut script = Script { answers, calls: vec![] };
    let mut look_in = |family: Family| Places { nftables: family.is_ipv4, legacy: false };
    tear_down(&mut script, &identity().chain, Which::AllBut(&[]), &mut look_in).unwrap();
    let programs: Vec<&str> = script.calls.iter().map(|(program, _)| program.as_str()).collect();
    assert_eq!(programs, ["iptables-save", "iptables-restore"]);
}

#[test]
fn one_family_failing_does_not_keep_the_other_from_being_removed() {
    let answers =
        vec![answer(1, "", "boom"), answer(0, &saved(&["10.1.0.2/24"]), ""), answer(0, "", "")];
    let mut script = Script { answers, calls: vec![] };
    let result = tear_down(&mut script, &identity().chain, Which::AllBut(&[]), &mut |_| NFTABLES);
    assert!(result.is_err());
    assert_eq!(script.calls.len(), 3);
}
