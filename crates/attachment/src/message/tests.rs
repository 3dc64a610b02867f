use super::*;
use proptest::prelude::*;

fn attachment() -> Attachment {
    Attachment {
        container_id: "c1".into(),
        ifname: "eth0".into(),
        netns: "/run/netns/c1".into(),
        network: "net".into(),
        pod: Some(Pod { namespace: "x".into(), name: "a.b-c".into(), uid: None }),
        addresses: ["10.1.0.2".parse().unwrap(), "fd00::2".parse().unwrap()].into(),
        host_interface: Some(HostInterface { name: "veth1".into(), bridge: Some("br0".into()) }),
    }
}

#[test]
fn a_request_is_one_line_and_reads_back() {
    let key = attachment().key();
    for request in [
        Request::Attach(attachment()),
        Request::Detach(key.clone()),
        Request::Check { key: key.clone(), addresses: attachment().addresses },
        Request::Gc { network: "net".into(), valid: vec![key] },
        Request::Status {},
    ] {
        let line = request.encode();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(line.last(), Some(&b'\n'));
        assert_eq!(Request::decode(&line).unwrap(), request);
    }
}

#[test]
fn an_answer_reads_back() {
    let problem = "no\nmore".to_owned();
    for answer in
        [Answer::Done {}, Answer::NotYet { problem: problem.clone() }, Answer::Refused { problem }]
    {
        assert_eq!(Answer::decode(&answer.encode()).unwrap(), answer);
    }
}

#[test]
fn the_form_stays_as_older_programs_know_it() {
    let expected = r#"{"version":1,"content":{"attach":{"containerId":"c1","ifname":"eth0","netns":"/run/netns/c1","network":"net","pod":{"namespace":"x","name":"a.b-c","uid":null},"addresses":["10.1.0.2","fd00::2"],"hostInterface":{"name":"veth1","bridge":"br0"}}}}"#;
    let line = String::from_utf8(Request::Attach(attachment()).encode()).unwrap();
    assert_eq!(line.trim_end(), expected);
}

#[test]
fn unknown_fields_are_ignored_and_other_versions_refused() {
    let newer =
        br#"{"version":1,"new":[],"content":{"detach":{"containerId":"c","ifname":"e","x":1}}}"#;
    assert!(matches!(Request::decode(newer).unwrap(), Request::Detach(_)));
    let other = br#"{"version":2,"content":{"anything":1}}"#;
    let error = Request::decode(other).unwrap_err().to_string();
    assert!(error.contains("another version"), "{error}");
    let unknown = br#"{"version":1,"content":{"dance":{}}}"#;
    for wrong in
        [unknown.as_slice(), b"{}", b"[]", br#"{"version":1}"#, br#"{"content":{"status":{}}}"#]
    {
        assert!(matches!(Request::decode(wrong), Err(Error::Invalid { .. })));
    }
}

#[test]
fn the_longest_names_are_taken() {
    let mut longest = attachment();
    longest.container_id = "a".repeat(ID_LIMIT);
    longest.pod.as_mut().unwrap().name = "a".repeat(NAME_LIMIT);
    let request = Request::Attach(longest);
    assert_eq!(Request::decode(&request.encode()).unwrap(), request);
}

#[test]
fn names_that_would_lead_elsewhere_are_refused() {
    let long = "a".repeat(NAME_LIMIT + 1);
    let wrong: [fn(&mut Attachment, &str); 4] = [
        |it, name| it.container_id = name.into(),
        |it, name| it.ifname = name.into(),
        |it, name| it.host_interface.as_mut().unwrap().name = name.into(),
        |it, name| it.pod.as_mut().unwrap().name = name.into(),
    ];
    for change in wrong {
        for name in ["", "../x", "a/b", "a b", &long] {
            let mut attachment = attachment();
            change(&mut attachment, name);
            let decoded = Request::decode(&Request::Attach(attachment).encode());
            assert!(matches!(decoded, Err(Error::Invalid { .. })), "{name:?}: {decoded:?}");
        }
    }
    let mut none = attachment();
    none.addresses.clear();
    assert!(Request::decode(&Request::Attach(none).encode()).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        let _ = Request::decode(&bytes);
        let _ = Answer::decode(&bytes);
        let _ = Attachment::decode(&bytes);
    }

    #[test]
    fn a_damaged_line_never_reads_as_another_container(at in 0..200usize, byte: u8) {
        let mut line = Request::Attach(attachment()).encode();
        let at = at % line.len();
        line[at] = byte;
        if let Ok(Request::Attach(read)) = Request::decode(&line) {
            prop_assert!(is_container_id(&read.container_id));
            prop_assert!(!read.addresses.is_empty());
        }
    }
}
