use super::*;
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::thread;

/// What a bus sends: a message with these fields, each aligned, and this body.
fn sent(kind: u8, fields: &[&[u8]], body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![ENDIAN, kind, 0, PROTOCOL];
    bytes.extend(u32::try_from(body.len()).unwrap().to_ne_bytes());
    bytes.extend([9, 0, 0, 0, 0, 0, 0, 0]);
    for field in fields {
        align(&mut bytes, 8);
        bytes.extend(*field);
    }
    let length = u32::try_from(bytes.len() - FIXED).unwrap();
    bytes[12..FIXED].copy_from_slice(&length.to_ne_bytes());
    align(&mut bytes, 8);
    bytes.extend(body);
    bytes
}

fn text_field(field: u8, value: &str) -> Vec<u8> {
    let mut bytes = vec![field, 1, b's', 0];
    push_text(&mut bytes, value).unwrap();
    bytes
}

fn reply_to(serial: u32) -> Vec<u8> {
    [&[FIELD_REPLY_SERIAL, 1, b'u', 0][..], &serial.to_ne_bytes()].concat()
}

fn read(bytes: &[u8]) -> Option<Answer> {
    Answer::read(bytes, usize::try_from(number(bytes, 12)?).ok()?)
}

#[test]
fn a_call_reads_as_what_was_meant() {
    let arguments = ["trusted", "10.1.0.2/32"];
    let call = Call {
        destination: "a.b",
        path: "/a",
        interface: "a.c",
        member: "m",
        arguments: &arguments,
    };
    let bytes = message(&call, 7).unwrap();
    assert_eq!(bytes[..4], [ENDIAN, METHOD_CALL, 0, PROTOCOL]);
    assert_eq!((number(&bytes, 8), bytes.len() % 4), (Some(7), 0));
    let read = read(&bytes).unwrap();
    assert_eq!(text(&read.body, 0), Some("trusted"));
    assert_eq!(text(&read.body, 12), Some("10.1.0.2/32"));
    assert_eq!(message(&Call { member: &"m".repeat(LONGEST), ..call }, 7), None);
}

#[test]
fn answers_are_read_and_what_is_cut_off_is_none() {
    let error = text_field(FIELD_ERROR_NAME, "org.x.Error");
    let signature = [FIELD_SIGNATURE, 1, b'g', 0, 1, b's', 0];
    let mut body = Vec::new();
    push_text(&mut body, "ZONE_ALREADY_SET: x").unwrap();
    let bytes = sent(ERROR, &[&error, &reply_to(5), &signature], &body);
    let answer = read(&bytes).unwrap();
    assert_eq!((answer.kind, answer.to, answer.error.as_str()), (ERROR, Some(5), "org.x.Error"));
    assert_eq!(answer.text(), Some("ZONE_ALREADY_SET: x"));
    for end in 0..bytes.len() - body.len() {
        let _ = read(&bytes[..end]);
    }
    let is = |value: u32| sent(METHOD_RETURN, &[&reply_to(1)], &value.to_ne_bytes());
    assert!(read(&is(1)).unwrap().boolean().unwrap() && !read(&is(0)).unwrap().boolean().unwrap());
    assert!(read(&is(2)).unwrap().boolean().is_err());
    assert!(read(&sent(METHOD_RETURN, &[&reply_to(1)], &[])).unwrap().boolean().is_err());
}

#[test]
fn addresses_of_the_bus_are_read() {
    let of = |text: &str| socket(Some(text.to_owned())).ok().map(|it| it.display().to_string());
    assert_eq!(socket(None).unwrap().display().to_string(), SOCKET);
    assert_eq!(of("").unwrap(), SOCKET);
    assert_eq!(of("unix:path=/x/y,guid=1").unwrap(), "/x/y");
    assert_eq!(of("tcp:host=a;unix:guid=1,path=/x").unwrap(), "/x");
    assert_eq!((of("unix:abstract=/x"), of("unix:path=/a%20b")), (None, None));
}

/// A bus that lets in, and answers as `answer` says after the greeting.
fn against(answer: impl FnOnce(&mut UnixStream) + Send + 'static) -> Result<(), BusError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bus");
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut room = [0; 4096];
        let _ = stream.read(&mut room).unwrap();
        answer(&mut stream);
        // Until it is hung up.
        while stream.read(&mut room).is_ok_and(|count| count > 0) {}
    });
    let connected = Bus::over(UnixStream::connect(&path).unwrap()).map(drop);
    server.join().unwrap();
    connected
}

#[test]
fn a_bus_that_does_not_let_in_or_hangs_up_is_told() {
    let refused = against(|it| it.write_all(b"REJECTED EXTERNAL\r\n").unwrap());
    assert!(matches!(refused, Err(BusError::NotLetIn(line)) if line == "REJECTED EXTERNAL"));
    let gone = against(|it| it.shutdown(Shutdown::Both).unwrap());
    assert!(matches!(gone, Err(BusError::Connection(_))));
    let long = against(|it| {
        let huge = [&[ENDIAN, METHOD_RETURN, 0, PROTOCOL][..], &[0xff; 12]].concat();
        let _ = it.write_all(&[b"DATA\r\nOK x\r\n".as_slice(), &huge].concat());
    });
    assert!(matches!(long, Err(BusError::Answer("it is too long"))), "{long:?}");
    let let_in = against(|it| {
        let signal = sent(4, &[&text_field(FIELD_MEMBER, "NameAcquired")], &[]);
        let hello = sent(METHOD_RETURN, &[&reply_to(1)], &[]);
        it.write_all(&[b"DATA\r\nOK x\r\n".as_slice(), &signal, &hello].concat()).unwrap();
    });
    assert!(let_in.is_ok(), "{let_in:?}");
}
