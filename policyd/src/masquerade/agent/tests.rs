use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::rc::Rc;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use runner::{Output, Program};

use super::*;
use crate::dataplane;
use crate::masquerade::{self, Metrics};

/// Answers what it was told to, in order, and keeps what was asked. Where nothing is left to
/// answer, programs succeed and print nothing.
#[derive(Clone, Default)]
struct Fake(Rc<RefCell<Script>>);

#[derive(Default)]
struct Script {
    asked: Vec<(String, String)>,
    answers: VecDeque<Result<Output, runner::Error>>,
}

impl Runner for Fake {
    fn run(&mut self, program: &Program<'_>) -> Result<Output, runner::Error> {
        let stdin = String::from_utf8(program.stdin.to_vec()).unwrap();
        let mut script = self.0.borrow_mut();
        script.asked.push((program.file.display().to_string(), stdin));
        script.answers.pop_front().unwrap_or_else(|| Ok(output(0, "", "")))
    }
}

fn output(code: i32, stdout: &str, stderr: &str) -> Output {
    let (stdout, stderr) = (stdout.into(), stderr.into());
    Output { process_id: 1, status: ExitStatus::from_raw(code << 8), stdout, stderr }
}

struct Scene {
    _folder: tempfile::TempDir,
    file: PathBuf,
    fake: Fake,
    agent: Agent<Fake>,
    now: Instant,
}

fn scene() -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ip-masq-agent");
    let fake = Fake::default();
    let agent =
        Agent::new(&file, Options::default(), Kind::Iptables, Programs::new(fake.clone(), ""));
    Scene { _folder: folder, file, fake, agent, now: Instant::now() }
}

impl Scene {
    fn after(&mut self, seconds: u64) -> Report {
        self.now += Duration::from_secs(seconds);
        self.agent.reconcile(self.now)
    }

    fn asked(&mut self) -> Vec<String> {
        self.fake.0.borrow_mut().asked.drain(..).map(|(file, _)| file).collect()
    }

    /// What the program that ran second was given: the rules of IPv4.
    fn rules(&self) -> String {
        self.fake.0.borrow().asked[1].1.clone()
    }

    fn answer(&self, answers: impl IntoIterator<Item = Result<Output, runner::Error>>) {
        self.fake.0.borrow_mut().answers.extend(answers);
    }
}

const BOTH: [&str; 3] = ["iptables-save", "iptables-restore", "ip6tables-save"];

#[test]
fn without_a_file_defaults_hold_and_the_kernel_is_asked_each_interval() {
    let mut scene = scene();
    let first = scene.after(0);
    assert!(first.reload.unwrap().unwrap().unknown_keys.is_empty());
    assert!(first.kernel.unwrap().unwrap());
    assert_eq!(scene.asked(), BOTH);
    let soon = scene.after(59);
    assert!(soon.reload.is_none() && soon.kernel.is_none());
    let later = scene.after(1);
    assert!(later.reload.is_none() && later.kernel.is_some());
    assert_eq!(scene.asked(), BOTH);
}

#[test]
fn a_changed_file_holds_at_once() {
    let mut scene = scene();
    scene.after(0);
    scene.asked();
    fs::write(&scene.file, "nonMasqueradeCIDRs: [100.64.0.0/10]\nresyncInterval: 5s\n").unwrap();
    assert!(scene.after(1).reload.unwrap().is_ok());
    let lines = scene.rules();
    assert!(lines.contains("-d 100.64.0.0/10") && !lines.contains("-d 10.0.0.0/8"), "{lines}");
    assert!(scene.after(4).kernel.is_none());
    assert!(scene.after(1).kernel.is_some());
    fs::remove_file(&scene.file).unwrap();
    let back = scene.after(1).reload.unwrap().unwrap();
    assert_eq!(back.config, Config::default_for(&Options::default()));
}

#[test]
fn a_bad_file_is_told_once_and_the_last_good_one_stays() {
    let mut scene = scene();
    fs::write(&scene.file, "nonMasqueradeCIDRs: [100.64.0.0/10]").unwrap();
    scene.after(0);
    scene.asked();
    fs::write(&scene.file, "nonMasqueradeCIDRs: nonsense").unwrap();
    let told = scene.after(1);
    assert!(matches!(told.reload, Some(Err(Error::Field { .. }))));
    assert!(told.kernel.is_none());
    assert!(scene.after(1).reload.is_none());
    assert!(scene.after(60).kernel.is_some());
    let lines = scene.rules();
    assert!(lines.contains("-d 100.64.0.0/10"), "{lines}");
}

#[test]
fn without_a_good_configuration_the_kernel_stays_as_it_is() {
    let mut scene = scene();
    fs::write(&scene.file, "]").unwrap();
    assert!(scene.after(0).kernel.is_none());
    assert!(scene.after(600).kernel.is_none());
    assert!(scene.asked().is_empty());
}

#[test]
fn what_cannot_be_read_is_told_once() {
    let mut scene = scene();
    fs::create_dir(&scene.file).unwrap();
    assert!(matches!(scene.after(0).reload, Some(Err(Error::Read { .. }))));
    assert!(scene.after(1).reload.is_none());
    fs::remove_dir(&scene.file).unwrap();
    assert!(scene.after(1).reload.unwrap().is_ok());
}

#[test]
fn more_than_a_configuration_is_refused() {
    let mut scene = scene();
    fs::write(&scene.file, "#".repeat((1 << 20) + 1)).unwrap();
    assert!(matches!(scene.after(0).reload, Some(Err(Error::TooLarge { .. }))));
}

#[test]
fn a_failure_is_tried_again_soon() {
    let mut scene = scene();
    scene.answer([Ok(output(1, "", "no"))]);
    let error = scene.after(0).kernel.unwrap().unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "iptables-save failed: no");
    assert!(scene.after(4).kernel.is_none());
    assert!(scene.after(1).kernel.unwrap().is_ok());
}

#[test]
fn a_foreign_table_is_told_and_not_touched() {
    let mut scene = scene();
    let saved = "# Table `nat' is incompatible, use 'nft' tool.\n";
    scene.answer([Ok(output(0, saved, ""))]);
    assert!(matches!(
        scene.after(0).kernel,
        Some(Err(Error::Kernel(dataplane::Error::Table { .. })))
    ));
    assert_eq!(scene.asked(), ["iptables-save", "ip6tables-save"]);
}

#[test]
fn nothing_is_removed_where_there_is_no_table() {
    for answer in [
        Err(runner::Error::NotFound("ip6tables-save".into())),
        Ok(output(1, "", "ip6tables-save: can't initialize ip6tables table `nat'")),
    ] {
        let mut scene = scene();
        let fine = || Ok(output(0, "", ""));
        scene.answer([fine(), fine(), answer]);
        assert!(scene.after(0).kernel.unwrap().is_ok());
    }
}

#[test]
fn removing_tries_both_families() {
    let mut scene = scene();
    scene.answer([Ok(output(4, "", "busy"))]);
    assert!(masquerade::remove(Kind::Iptables, &mut scene.agent.programs).is_err());
    assert_eq!(scene.asked(), ["iptables-save", "ip6tables-save"]);
}

#[test]
fn what_was_done_is_counted() {
    let mut scene = scene();
    let (metrics, mut registry) = (Metrics::default(), Registry::default());
    metrics.register(&mut registry);
    let shown = || {
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect::<Vec<u64>>()
    };
    // Rejected, written, failed.
    fs::write(&scene.file, "]").unwrap();
    metrics.see(&scene.after(0));
    assert_eq!(shown(), [1, 0, 0]);
    metrics.see(&scene.after(1));
    assert_eq!(shown(), [1, 0, 0]);
    fs::write(&scene.file, "nonMasqueradeCIDRs: [100.64.0.0/10]").unwrap();
    metrics.see(&scene.after(1));
    assert_eq!(shown(), [0, 1, 0]);
    scene.answer([Ok(output(1, "", "no"))]);
    metrics.see(&scene.after(60));
    assert_eq!(shown(), [0, 1, 1]);
}

#[test]
fn others_that_change_its_table_have_it_compared_soon() {
    let told = |tables: &[&str]| {
        let tables = tables.iter().map(|it| (*it).to_owned()).collect();
        let (id, process_id, port, process_name) = (1, 2, 2, "nft".to_owned());
        Event::Heard(Generation { id, process_id, process_name, port, tables })
    };
    for (kind, event, is_compared) in [
        (Kind::Nftables, told(&["nat", "podwire-masquerade"]), true),
        (Kind::Nftables, told(&["nat", "podwire"]), false),
        // The kernel does not tell which.
        (Kind::Nftables, told(&[]), true),
        (Kind::Nftables, Event::Missed, true),
        (Kind::Iptables, told(&["nat", "podwire-masquerade"]), false),
    ] {
        let mut scene = scene();
        scene.after(0);
        scene.agent.kind = kind;
        scene.agent.hear(std::slice::from_ref(&event));
        let due = scene.agent.due().unwrap() - scene.now;
        assert_eq!(due < Duration::from_secs(1), is_compared, "{kind:?} {event:?}");
        // Not at once after it was compared.
        assert!(due >= Duration::from_millis(500));
    }
}
