//! The events of a watch, as the API server sends them: lines of JSON, or protobuf with the length
//! before each.

use http::Response;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use kube::core::Status;
use prost::Message;
use prost::bytes::{Buf, Bytes, BytesMut};
use serde::Deserialize;
use serde::de::Error as _;

use crate::Part;

/// What is asked for: protobuf, or JSON from a server that has no other; or JSON alone.
pub(super) const fn accepted(json_alone: bool) -> &'static str {
    if json_alone {
        "application/json"
    } else {
        "application/vnd.kubernetes.protobuf;stream=watch, application/json;q=0.5"
    }
}

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// No object is longer, by far: etcd takes 1.5 MB.
const LONGEST: usize = 32 << 20;
/// A refusal is some sentences.
const LONGEST_REFUSAL: usize = 1 << 20;
/// Bytes of the length before each event.
const COUNT: usize = 4;
/// What an object in protobuf begins with (`k8s.io/apimachinery/pkg/runtime/serializer/protobuf`).
const MAGIC: &[u8] = b"k8s\0";

/// An event.
#[derive(Debug)]
pub(super) enum Event<P> {
    /// An object was created, or is otherwise than before.
    Applied(P),
    /// One is gone; as it was at the end.
    Removed(P),
    /// All changes up to the version of this have been told.
    Bookmark(P),
    /// The watch fails.
    Failed(Box<Status>),
}

/// The events of an answer.
#[derive(Debug)]
pub(super) struct Events {
    body: Body,
    is_protobuf: bool,
    /// What has come and was not taken yet.
    buffer: BytesMut,
    /// So far there is no line's end in it.
    searched: usize,
}

impl Events {
    /// Of an answer, unless it is a refusal.
    pub(super) async fn of(answer: Response<Body>) -> kube::Result<Self> {
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
        let is_protobuf = kind.is_some_and(|kind| kind.starts_with(PROTOBUF));
        let code = answer.status();
        let body = answer.into_body();
        if code.is_success() {
            return Ok(Self { body, is_protobuf, buffer: BytesMut::new(), searched: 0 });
        }
        let text = Limited::new(body, LONGEST_REFUSAL).collect().await;
        let text = text.map_err(kube::Error::Service)?.to_bytes();
        let status =
            if is_protobuf { status(&text).ok() } else { serde_json::from_slice(&text).ok() };
        // Of a proxy, or of a server that has no such kind.
        let other = || {
            let text = String::from_utf8_lossy(&text);
            Status::failure(text.trim(), "").with_code(code.as_u16())
        };
        let mut status = status.unwrap_or_else(other);
        if status.code == 0 {
            status.code = code.as_u16();
        }
        Err(kube::Error::Api(status.boxed()))
    }

    /// The next event; `None` at the end. When the future is dropped, none is lost.
    pub(super) async fn next<P: Part>(&mut self) -> Option<kube::Result<Event<P>>> {
        loop {
            match self.take() {
                Ok(Some(frame)) if self.is_protobuf => return Some(from_protobuf(frame)),
                Ok(Some(frame)) => return Some(from_json(&frame)),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
            match self.body.frame().await? {
                // Trailers tell nothing.
                Ok(frame) => {
                    frame.into_data().into_iter().for_each(|it| self.buffer.extend_from_slice(&it));
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Takes an event's bytes, once they are whole.
    fn take(&mut self) -> kube::Result<Option<Bytes>> {
        if self.is_protobuf { self.take_counted() } else { self.take_line() }
    }

    fn take_counted(&mut self) -> kube::Result<Option<Bytes>> {
        let Some(length) = self.buffer.first_chunk().copied().map(u32::from_be_bytes) else {
            return Ok(None);
        };
        let length = length as usize;
        if length > LONGEST {
            return Err(unreadable(format!("it has {length} bytes")));
        }
        if self.buffer.len() - COUNT < length {
            return Ok(None);
        }
        self.buffer.advance(COUNT);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    fn take_line(&mut self) -> kube::Result<Option<Bytes>> {
        let new = self.buffer.get(self.searched..).unwrap_or_default();
        if let Some(end) = new.iter().position(|byte| *byte == b'\n') {
            let end = self.searched + end + 1;
            self.searched = 0;
            return Ok(Some(self.buffer.split_to(end).freeze()));
        }
        self.searched = self.buffer.len();
        if self.searched > LONGEST {
            return Err(unreadable(format!("it has more than {LONGEST} bytes")));
        }
        Ok(None)
    }
}

/// An event in JSON.
#[derive(Deserialize)]
#[serde(tag = "type", content = "object", rename_all = "UPPERCASE")]
enum JsonEvent<P> {
    Added(P),
    Modified(P),
    Deleted(P),
    Bookmark(P),
    Error(Box<Status>),
}

fn from_json<P: Part>(line: &[u8]) -> kube::Result<Event<P>> {
    Ok(match serde_json::from_slice(line).map_err(kube::Error::SerdeError)? {
        JsonEvent::Added(object) | JsonEvent::Modified(object) => Event::Applied(object),
        JsonEvent::Deleted(object) => Event::Removed(object),
        JsonEvent::Bookmark(object) => Event::Bookmark(object),
        JsonEvent::Error(status) => Event::Failed(status),
    })
}

/// `k8s.io/apimachinery/pkg/apis/meta/v1.WatchEvent`.
#[derive(Clone, PartialEq, Message)]
struct ProtobufEvent {
    #[prost(string, optional, tag = "1")]
    kind: Option<String>,
    #[prost(message, optional, tag = "2")]
    object: Option<Raw>,
}

/// `k8s.io/apimachinery/pkg/runtime.RawExtension`.
#[derive(Clone, PartialEq, Message)]
struct Raw {
    #[prost(bytes = "bytes", optional, tag = "1")]
    raw: Option<Bytes>,
}

/// `k8s.io/apimachinery/pkg/runtime.Unknown`, which is around each object.
#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(bytes = "bytes", optional, tag = "2")]
    raw: Option<Bytes>,
}

/// `k8s.io/apimachinery/pkg/apis/meta/v1.Status`.
#[derive(Clone, PartialEq, Message)]
struct StatusPart {
    #[prost(string, optional, tag = "3")]
    message: Option<String>,
    #[prost(string, optional, tag = "4")]
    reason: Option<String>,
    #[prost(int32, optional, tag = "6")]
    code: Option<i32>,
}

fn from_protobuf<P: Part>(frame: Bytes) -> kube::Result<Event<P>> {
    let event = ProtobufEvent::decode(frame).map_err(unreadable)?;
    let object = event.object.and_then(|it| it.raw).unwrap_or_default();
    let part = |object: &Bytes| P::decode(enclosed(object)?).map_err(unreadable);
    Ok(match event.kind.unwrap_or_default().as_str() {
        "ADDED" | "MODIFIED" => Event::Applied(part(&object)?),
        "DELETED" => Event::Removed(part(&object)?),
        "BOOKMARK" => Event::Bookmark(part(&object)?),
        "ERROR" => Event::Failed(status(&object)?.boxed()),
        kind => return Err(unreadable(format!("an event of type {kind:?}"))),
    })
}

/// What is in an object's envelope.
fn enclosed(object: &Bytes) -> kube::Result<Bytes> {
    if !object.starts_with(MAGIC) {
        return Err(unreadable("it does not begin as objects in protobuf do"));
    }
    let envelope = Envelope::decode(object.slice(MAGIC.len()..)).map_err(unreadable)?;
    Ok(envelope.raw.unwrap_or_default())
}

fn status(object: &Bytes) -> kube::Result<Status> {
    let part = StatusPart::decode(enclosed(object)?).map_err(unreadable)?;
    let [message, reason] = [part.message, part.reason].map(Option::unwrap_or_default);
    let code = part.code.and_then(|code| u16::try_from(code).ok()).unwrap_or_default();
    Ok(Status::failure(&message, &reason).with_code(code))
}

/// What came cannot be read.
fn unreadable(why: impl std::fmt::Display) -> kube::Error {
    kube::Error::SerdeError(serde_json::Error::custom(why))
}
