//! The server and its files, with a loop that does as the test says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use attachment::{Answer, Attachment, Files, Key, Pod, Request as Told};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::{Places, Request, Server};

const WAIT: Duration = Duration::from_secs(20);

/// A server with a loop, which does what it is asked unless told otherwise.
struct Scene {
    home: TempDir,
    seen: Arc<Mutex<Vec<String>>>,
    refuses: Arc<Mutex<Option<String>>>,
    /// The ids of the attachments that were there at the start.
    first: Vec<String>,
}

fn places(home: &TempDir) -> Places {
    Places { socket: home.path().join("run/policyd.sock"), files: home.path().join("run/files") }
}

impl Scene {
    fn new(home: TempDir) -> Self {
        let (sender, mut receiver) = mpsc::channel(4);
        let (server, first) = Server::bind(&places(&home), sender).unwrap();
        let first = first.into_iter().map(|it| it.container_id).collect();
        let scene = Self { home, seen: Arc::default(), refuses: Arc::default(), first };
        tokio::spawn(server.run());
        let (seen, refuses) = (Arc::clone(&scene.seen), Arc::clone(&scene.refuses));
        tokio::spawn(async move {
            while let Some(request) = receiver.recv().await {
                let (text, reply) = match request {
                    Request::Attach { attachment, reply } => {
                        (format!("attach {}", attachment.container_id), reply)
                    }
                    Request::Detach { container_id, reply } => {
                        (format!("detach {container_id}"), reply)
                    }
                    Request::Status { reply } => ("status".to_owned(), reply),
                };
                seen.lock().unwrap().push(text);
                // Who asked may not want to know.
                let _ = reply.send(refuses.lock().unwrap().clone().map_or(Ok(()), Err));
            }
        });
        scene
    }

    fn empty() -> Self {
        Self::new(tempfile::tempdir().unwrap())
    }

    fn files(&self) -> Files {
        Files::new(&places(&self.home).files)
    }

    async fn ask(&self, request: Told) -> Answer {
        let socket = places(&self.home).socket;
        spawn_blocking(move || attachment::ask(&socket, &request, WAIT)).await.unwrap().unwrap()
    }

    /// What the loop was asked since this was last called.
    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    fn ids(&self) -> Vec<String> {
        let (attachments, problems) = self.files().list().unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        let mut ids: Vec<_> = attachments.into_iter().map(|it| it.container_id).collect();
        ids.sort();
        ids
    }
}

fn attachment(container_id: &str, address: &str) -> Attachment {
    Attachment {
        container_id: container_id.into(),
        ifname: "eth0".into(),
        netns: "/run/netns/x".into(),
        network: "net".into(),
        pod: None,
        addresses: [address.parse().unwrap()].into(),
        host_interface: None,
    }
}

fn attach(container_id: &str, address: &str) -> Told {
    Told::Attach(attachment(container_id, address))
}

fn key(container_id: &str, ifname: &str) -> Key {
    Key { container_id: container_id.into(), ifname: ifname.into() }
}

fn problem(answer: Answer) -> String {
    match answer {
        Answer::Done {} => panic!("it was done"),
        Answer::NotYet { problem } | Answer::Refused { problem } => problem,
    }
}

#[tokio::test]
async fn an_attachment_comes_is_known_and_goes() {
    let scene = Scene::empty();
    assert_eq!(scene.ask(attach("c1", "10.0.0.1")).await, Answer::Done {});
    assert_eq!((scene.seen(), scene.ids()), (vec!["attach c1".into()], vec!["c1".into()]));
    let check = |address: &str| Told::Check {
        key: key("c1", "eth0"),
        addresses: [address.parse().unwrap()].into(),
    };
    assert_eq!(scene.ask(check("10.0.0.1")).await, Answer::Done {});
    assert!(problem(scene.ask(check("10.0.0.2")).await).contains("10.0.0.2"));
    // Of another interface of the container policyd knows nothing, and lets it go.
    assert_eq!(scene.ask(Told::Detach(key("c1", "net1"))).await, Answer::Done {});
    assert_eq!((scene.seen(), scene.ids()), (vec![], vec!["c1".into()]));
    assert_eq!(scene.ask(Told::Detach(key("c1", "eth0"))).await, Answer::Done {});
    assert_eq!(scene.ask(Told::Detach(key("c1", "eth0"))).await, Answer::Done {});
    assert_eq!((scene.seen(), scene.ids()), (vec!["detach c1".into()], vec![]));
    assert!(problem(scene.ask(check("10.0.0.1")).await).contains("knows nothing"));
}

#[tokio::test]
async fn a_container_has_one_default_network() {
    let scene = Scene::empty();
    scene.ask(attach("c1", "10.0.0.1")).await;
    let other = Attachment { ifname: "net1".into(), ..attachment("c1", "10.9.0.1") };
    let answer = scene.ask(Told::Attach(other)).await;
    assert!(matches!(&answer, Answer::Refused { problem } if problem.contains("\"net1\"")));
    assert_eq!(scene.seen(), ["attach c1"]);
}

#[tokio::test]
async fn what_fails_keeps_its_file() {
    let scene = Scene::empty();
    *scene.refuses.lock().unwrap() = Some("no table".into());
    let answer = scene.ask(attach("c1", "10.0.0.1")).await;
    assert_eq!(answer, Answer::NotYet { problem: "no table".into() });
    assert_eq!(scene.ids(), ["c1"]);
    assert!(matches!(scene.ask(Told::Detach(key("c1", "eth0"))).await, Answer::NotYet { .. }));
    assert!(matches!(scene.ask(Told::Status {}).await, Answer::NotYet { .. }));
    assert_eq!(scene.ids(), ["c1"]);
    *scene.refuses.lock().unwrap() = None;
    assert_eq!(scene.ask(Told::Detach(key("c1", "eth0"))).await, Answer::Done {});
    assert_eq!(scene.ask(Told::Status {}).await, Answer::Done {});
    assert_eq!(scene.ids(), [""; 0]);
}

#[tokio::test]
async fn a_second_sandbox_of_a_pod_takes_the_place_of_the_first() {
    let scene = Scene::empty();
    let of_pod = |id: &str, address: &str, uid: &str| {
        let pod = Pod { namespace: "shop".into(), name: "web".into(), uid: Some(uid.into()) };
        Told::Attach(Attachment { pod: Some(pod), ..attachment(id, address) })
    };
    for (id, address, uid) in
        [("a", "10.0.0.2", "u-1"), ("z", "10.0.0.3", "u-1"), ("m", "10.0.0.4", "u-2")]
    {
        assert_eq!(scene.ask(of_pod(id, address, uid)).await, Answer::Done {});
    }
    // Another pod of that name may still be ending.
    assert_eq!(scene.ids(), ["m", "z"]);
    assert_eq!(scene.seen(), ["attach a", "detach a", "attach z", "attach m"]);
}

#[tokio::test]
async fn an_address_that_is_given_again_has_left_its_former_owner() {
    let scene = Scene::empty();
    scene.ask(attach("c1", "10.0.0.1")).await;
    scene.ask(attach("c2", "10.0.0.2")).await;
    scene.seen();
    assert_eq!(scene.ask(attach("c3", "10.0.0.1")).await, Answer::Done {});
    assert_eq!(scene.seen(), ["detach c1", "attach c3"]);
    assert_eq!(scene.ids(), ["c2", "c3"]);
}

#[tokio::test]
async fn only_what_is_of_the_network_and_invalid_is_collected() {
    let scene = Scene::empty();
    scene.ask(attach("c1", "10.0.0.1")).await;
    scene.ask(attach("c2", "10.0.0.2")).await;
    let other = Attachment { network: "other".into(), ..attachment("c3", "10.0.0.3") };
    scene.ask(Told::Attach(other)).await;
    scene.seen();
    // What the plugin wrote by itself is collected, too.
    scene.files().put(&attachment("c4", "10.0.0.4")).unwrap();
    let valid = vec![key("c1", "eth0"), key("c3", "eth0")];
    assert_eq!(scene.ask(Told::Gc { network: "net".into(), valid }).await, Answer::Done {});
    assert_eq!(scene.seen(), ["attach c4", "detach c2", "detach c4"]);
    assert_eq!(scene.ids(), ["c1", "c3"]);
}

#[tokio::test]
async fn whoever_comes_next_finds_the_files_and_takes_the_place() {
    let home = tempfile::tempdir().unwrap();
    let files = Files::new(&places(&home).files);
    files.put(&attachment("c1", "10.0.0.1")).unwrap();
    fs::write(places(&home).files.join("c2.json"), "{").unwrap();
    let former = std::os::unix::net::UnixListener::bind(places(&home).socket).unwrap();
    let scene = Scene::new(home);
    assert_eq!(scene.first, ["c1"]);
    assert_eq!(scene.seen(), [""; 0]);
    // The damaged one can be attached again, or detached.
    assert_eq!(scene.ask(Told::Detach(key("c2", "eth0"))).await, Answer::Done {});
    assert_eq!((scene.seen(), scene.ids()), (vec!["detach c2".into()], vec!["c1".into()]));
    drop(former);
    assert_eq!(scene.ask(Told::Status {}).await, Answer::Done {});
}

#[tokio::test]
async fn only_root_may_connect() {
    let scene = Scene::empty();
    let Places { socket, files } = places(&scene.home);
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(socket.as_path()), mode(socket.parent().unwrap())), (0o600, 0o700));
    scene.ask(attach("c1", "10.0.0.1")).await;
    assert_eq!((mode(&files), mode(&files.join("c1.json"))), (0o700, 0o600));
    assert!(!socket.with_extension("new").exists());
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_changes_nothing() {
    use std::io::{Read, Write};
    let scene = Scene::empty();
    let too_long = vec![b'x'; usize::try_from(attachment::LINE_LIMIT).unwrap() + 1];
    for bytes in [b"\n".as_slice(), b"{}\n", b"\xff\xff\n", &too_long] {
        let (socket, bytes) = (places(&scene.home).socket, bytes.to_owned());
        let line = spawn_blocking(move || {
            let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
            // Of a line that is too long the end is not read.
            let _ = stream.write_all(&bytes);
            let mut line = Vec::new();
            let _ = stream.read_to_end(&mut line);
            line
        });
        let line = line.await.unwrap();
        assert!(line.is_empty() || matches!(Answer::decode(&line), Ok(Answer::Refused { .. })));
    }
    assert_eq!(scene.ask(Told::Status {}).await, Answer::Done {});
    assert_eq!(scene.seen(), ["status"]);
}

#[tokio::test]
async fn a_loop_that_has_ended_leaves_the_plugin_to_itself() {
    let home = tempfile::tempdir().unwrap();
    let (sender, receiver) = mpsc::channel(1);
    let (server, _) = Server::bind(&places(&home), sender).unwrap();
    tokio::spawn(server.run());
    drop(receiver);
    let socket = places(&home).socket;
    let request = attach("c1", "10.0.0.1");
    let answer = spawn_blocking(move || attachment::ask(&socket, &request, WAIT)).await.unwrap();
    assert!(matches!(answer, Err(attachment::Error::Away { .. })), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_plugin_did_by_itself_is_found() {
    let scene = Scene::empty();
    scene.files().put(&attachment("c1", "10.0.0.1")).unwrap();
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert_eq!(scene.seen(), ["attach c1"]);
    scene.files().remove("c1").unwrap();
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert_eq!(scene.seen(), ["detach c1"]);
}

#[test]
fn the_gates_sets_have_the_names_that_the_plugin_knows() {
    use crate::iptables::{Family, programmed_set};
    assert_eq!(Family::ALL.map(|family| programmed_set(family).name), attachment::GATE_SETS);
    for (family, address) in
        Family::ALL.into_iter().zip(["192.0.2.1", "2001:db8::1"].map(|it| it.parse().unwrap()))
    {
        let (maps, chain) = attachment::gate_of_table(&address);
        assert_eq!(crate::nftables::programmed(family), maps);
        assert_eq!(crate::nftables::gate(family), chain);
    }
    assert_eq!(crate::nftables::TABLE, attachment::GATE_TABLE);
}

#[tokio::test]
async fn of_two_sandboxes_of_a_pod_that_came_while_nobody_answered_the_later_one_counts() {
    let home = tempfile::tempdir().unwrap();
    let files = Files::new(&places(&home).files);
    let pod = || Some(Pod { namespace: "default".into(), name: "p".into(), uid: None });
    // Their ids say nothing of their age.
    for (earlier, later, number) in [("b", "a", 1), ("c", "d", 2)] {
        for (container_id, last) in [(earlier, 1), (later, 2)] {
            let pod = pod().map(|it| Pod { name: format!("p{number}"), ..it });
            let address = format!("10.1.{number}.{last}");
            files.put(&Attachment { pod, ..attachment(container_id, &address) }).unwrap();
            // The kernel's clock of files has steps of some milliseconds.
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
    // An address that has a new owner is the same.
    files.put(&attachment("f", "10.1.3.1")).unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    files.put(&attachment("e", "10.1.3.1")).unwrap();
    let scene = Scene::new(home);
    let mut first = scene.first.clone();
    first.sort();
    assert_eq!(first, ["a", "d", "e"]);
    assert_eq!(scene.ids(), ["a", "d", "e"]);
}
