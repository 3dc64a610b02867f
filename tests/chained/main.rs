//! `podwire chain` and `unchain` as a user runs them, over lists of others that write them again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lab::{Daemon, Node, Suite, program};

const PATIENCE: Duration = Duration::from_secs(20);
const FLANNEL: &str = r#"{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "plugins": [
    { "type": "flannel", "delegate": { "isDefaultGateway": true } },
    { "type": "portmap", "capabilities": { "portMappings": true } }
  ]
}
"#;

fn podwire(words: &[&str], file: &Path) -> Command {
    let mut command = program(Suite::podwire().plugin("podwire"));
    command.args(words).arg(file);
    command
}

/// What a folder holds of a list: whether it is chained, and nothing but that one file.
fn is_chained(file: &Path, owned: &str) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    let added = ",\n    {\"type\": \"podwire-policy\"}";
    text == owned.replace("\n  ]", &format!("{added}\n  ]"))
}

struct Watched {
    node: Node,
    folder: PathBuf,
    file: PathBuf,
    daemon: Daemon,
}

fn watched() -> Watched {
    let node = Node::new();
    let folder = node.home().join("net.d");
    let file = folder.join("10-flannel.conflist");
    let daemon = start(&node, &file);
    Watched { node, folder, file, daemon }
}

fn start(node: &Node, file: &Path) -> Daemon {
    let command = podwire(&["chain", "--watch", "--into"], file);
    Daemon::start("podwire chain", command, node, node.home().join("chain.log"))
}

impl Watched {
    fn wait(&mut self, owned: &str) {
        let Self { file, daemon, .. } = self;
        daemon.wait_until(PATIENCE, || is_chained(file, owned));
    }

    /// Puts a file there as most do: beside it, and then in its place.
    fn rename(&self, text: &str) {
        let draft = self.folder.join("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, &self.file).unwrap();
    }
}

#[test]
fn whatever_the_owner_does_it_is_chained_again() {
    let mut it = watched();
    // There is not even a folder yet.
    std::thread::sleep(Duration::from_millis(300));
    fs::create_dir(&it.folder).unwrap();
    it.rename(FLANNEL);
    it.wait(FLANNEL);
    // Written in place, in steps.
    let second = FLANNEL.replace("0.3.1", "1.0.0");
    fs::write(&it.file, &second[..40]).unwrap();
    std::thread::sleep(Duration::from_millis(120));
    fs::write(&it.file, &second).unwrap();
    it.wait(&second);
    // Replaced; removed and made again; the folder too.
    it.rename(FLANNEL);
    it.wait(FLANNEL);
    fs::remove_file(&it.file).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    it.rename(&second);
    it.wait(&second);
    fs::remove_dir_all(&it.folder).unwrap();
    fs::create_dir(&it.folder).unwrap();
    it.rename(FLANNEL);
    it.wait(FLANNEL);
    // Killed and started again.
    it.daemon.kill();
    it.rename(&second);
    it.daemon = start(&it.node, &it.file);
    it.wait(&second);
    // It stays when the program ends, and goes when that is asked for.
    it.daemon.terminate(PATIENCE);
    assert!(is_chained(&it.file, &second));
    for word in ["podwire-policy is taken out", "unchanged"] {
        let ended = it.node.run(podwire(&["unchain", "--from"], &it.file));
        assert!(ended.status.success() && ended.stdout.contains(word), "{ended:?}");
        assert_eq!(fs::read_to_string(&it.file).unwrap(), second);
    }
    assert_eq!(fs::read_dir(&it.folder).unwrap().count(), 1);
}

#[test]
fn what_is_refused_is_told_and_left_alone() {
    let node = Node::new();
    let folder = node.home().join("net.d");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("10-flannel.conflist"), FLANNEL).unwrap();
    for (name, text, word) in [
        ("00-multus.conf", r#"{"name":"m","type":"multus"}"#, "10-flannel.conflist"),
        ("20-bridge.conf", r#"{"name":"b","type":"bridge"}"#, "single plugin"),
        ("30-torn.conflist", r#"{"name":"b","plu"#, "not JSON"),
        ("40-none.conflist", "", "not JSON"),
    ] {
        let file = folder.join(name);
        fs::write(&file, text).unwrap();
        let ended = node.run(podwire(&["chain", "--into"], &file));
        assert_eq!(ended.status.code(), Some(1), "{ended:?}");
        assert!(ended.stderr.contains(word) && ended.stderr.contains(name), "{}", ended.stderr);
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
    let ended = node.run(podwire(&["chain", "--into"], &folder.join("absent.conflist")));
    assert!(ended.stderr.contains("cannot read") && ended.stderr.contains("absent"), "{ended:?}");
    let ended = node.run(podwire(&["unchain", "--from"], &folder.join("absent.conflist")));
    assert!(ended.status.success() && ended.stdout.contains("not there"), "{ended:?}");
}

/// Killed at any time it leaves the old list or the new one, and the next one nothing else.
#[test]
fn killed_it_leaves_a_whole_list() {
    let node = Node::new();
    let folder = node.home().join("net.d");
    let file = folder.join("10-flannel.conflist");
    fs::create_dir(&folder).unwrap();
    for turn in 0..100_u64 {
        fs::write(&file, FLANNEL).unwrap();
        let mut command = podwire(&["chain", "--into"], &file);
        let mut running = command.stdout(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(turn * 37));
        running.kill().unwrap();
        running.wait().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text == FLANNEL || is_chained(&file, FLANNEL), "{text}");
    }
    // Until then it might be that of one who is at it.
    std::thread::sleep(Duration::from_millis(2100));
    assert!(node.run(podwire(&["chain", "--into"], &file)).status.success());
    assert!(is_chained(&file, FLANNEL));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
}
