//! Watching all objects of a kind.

use std::collections::HashMap;
use std::time::Duration;

use http::HeaderValue;
use http::header::ACCEPT;
use kube::api::{ListParams, WatchParams};
use kube::client::Body;
use kube::core::{Request, Status};
use kube::{Client, Resource};
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, timeout};

use crate::backoff::Backoff;
use crate::page::{self, Page};
use crate::part::{Metadata, Part};
use crate::{ANSWER, Attempt, Error};

mod events;
#[cfg(test)]
mod tests;

use events::{Event, Events};

/// The server ends a watch after this many seconds, and a new one goes on where it ended.
const LASTS: u32 = 290;

/// A watch that ends sooner than this has ended at once.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Objects of a page, where the server does not stream lists.
const PAGE: u32 = 500;

/// The annotation of the bookmark that ends a streamed list (KEP-3157).
const END_OF_LIST: &str = "k8s.io/initial-events-end";

/// A change of the objects of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<T> {
    /// One was created, or is otherwise than before.
    Applied(T),
    /// One is gone; as it was at the end.
    Removed(T),
    /// These are all there are, the first time and whenever changes may have been missed.
    Listed(Vec<T>),
}

/// A watch of all objects of a kind. Of each object the part `P` is read, and what `trim` makes of that
/// is kept, while a list is still being read as well.
pub struct Watch<P, T> {
    client: Client,
    objects: String,
    fields: Option<String>,
    trim: fn(P) -> T,
    /// Where the next watch begins; `None`: with a list.
    version: Option<String>,
    /// Something came in protobuf that cannot be read. The API server does not check that texts in it
    /// are UTF-8, but mends them for JSON: else one annotation would end the watch for everybody.
    wants_json: bool,
    stream: Option<Stream>,
    backoff: Backoff,
}

struct Stream {
    events: Events,
    begun: Instant,
}

impl<P: Part, T> Watch<P, T> {
    /// A watch of the objects of all namespaces.
    #[must_use]
    pub fn new(client: Client, trim: fn(P) -> T) -> Self {
        Self {
            client,
            objects: P::Whole::plural(&()).into_owned(),
            fields: None,
            trim,
            version: None,
            wants_json: false,
            stream: None,
            backoff: Backoff::default(),
        }
    }

    /// Of the objects that this field selector selects, such as `metadata.name=node-1`.
    #[must_use]
    pub fn fields(mut self, selector: impl Into<String>) -> Self {
        self.fields = Some(selector.into());
        self
    }

    /// The next change, whenever it comes. The first one is a list. When the future is dropped, no
    /// change is lost.
    ///
    /// # Errors
    /// When something failed. That is only to be told: the next call tries again, after a pause
    /// that grows with the failures, up to 30 s, so that there are not many of them.
    pub async fn next(&mut self) -> Result<Change<T>, Error> {
        loop {
            self.backoff.wait().await;
            match self.step().await {
                Ok(Some(change)) => return Ok(change),
                Ok(None) => {}
                Err(error) => {
                    self.stream = None;
                    self.wants_json |= matches!(
                        &error, Error::Request { source, .. } if is_unreadable(source)
                    );
                    self.backoff.failed();
                    return Err(error);
                }
            }
        }
    }

    async fn step(&mut self) -> Result<Option<Change<T>>, Error> {
        if let Some(stream) = &mut self.stream {
            let end = Duration::from_secs(LASTS.into()) + ANSWER;
            let event = timeout(end, stream.events.next()).await;
            return self.follow(event.unwrap_or_default());
        }
        let Some(version) = self.version.clone() else {
            return self.list().await.map(Some);
        };
        match self.open(false, &version).await {
            Ok(stream) => self.stream = Some(stream),
            Err(Error::Request { source, .. }) if is_gone(&source) => self.forget(),
            Err(error) => return Err(error),
        }
        Ok(None)
    }

    /// What an event of the watch means.
    fn follow(
        &mut self,
        event: Option<kube::Result<Event<P>>>,
    ) -> Result<Option<Change<T>>, Error> {
        match event {
            Some(Ok(Event::Applied(object))) => {
                self.version = Some(self.version_of(&object)?);
                Ok(Some(Change::Applied((self.trim)(object))))
            }
            Some(Ok(Event::Removed(object))) => {
                self.version = Some(self.version_of(&object)?);
                Ok(Some(Change::Removed((self.trim)(object))))
            }
            Some(Ok(Event::Bookmark(bookmark))) => {
                self.version = Some(self.version_of(&bookmark)?);
                Ok(None)
            }
            Some(Ok(Event::Failed(status))) => self.refused(kube::Error::Api(status)),
            Some(Err(error)) => self.refused(error),
            None => {
                let stream = self.stream.take();
                if stream.is_some_and(|stream| stream.begun.elapsed() < AT_ONCE) {
                    return Err(Error::EndsAtOnce { objects: self.objects.clone() });
                }
                Ok(None)
            }
        }
    }

    /// The watch failed. Where an event may be lost by that, a list follows.
    fn refused(&mut self, error: kube::Error) -> Result<Option<Change<T>>, Error> {
        self.stream = None;
        if is_gone(&error) {
            self.forget();
            return Ok(None);
        }
        if is_unreadable(&error) {
            self.version = None;
        }
        Err(Error::request(Attempt::Watch, &self.objects, error))
    }

    /// The server has forgotten what came after our version: a list follows, but not at once, as the same
    /// may be so after it.
    fn forget(&mut self) {
        self.version = None;
        self.backoff.failed();
    }

    /// Lists all objects: streamed, or in pages by a server that does not stream.
    async fn list(&mut self) -> Result<Change<T>, Error> {
        match self.streamed().await {
            Err(Error::Request { source, .. }) if does_not_stream(&source) => self.paged().await,
            result => result,
        }
    }

    /// Lists by a watch that begins with all objects. It is kept.
    async fn streamed(&mut self) -> Result<Change<T>, Error> {
        let failed = |error| Error::request(Attempt::List, &self.objects, error);
        let mut stream = self.open(true, "").await?;
        // The server may stream changes too, of objects that it has already streamed.
        let mut objects = HashMap::new();
        loop {
            let event = self.bounded(stream.events.next()).await?;
            let ended = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
            match event.unwrap_or(Err(kube::Error::ReadEvents(ended))).map_err(failed)? {
                Event::Applied(object) => {
                    objects.insert(uid(&object), (self.trim)(object));
                }
                Event::Removed(object) => _ = objects.remove(&uid(&object)),
                Event::Failed(status) => return Err(failed(kube::Error::Api(status))),
                Event::Bookmark(bookmark) => {
                    let annotations = bookmark.metadata().map(|it| &it.annotations);
                    if annotations.is_some_and(|it| it.contains_key(END_OF_LIST)) {
                        self.version = Some(self.version_of(&bookmark)?);
                        self.stream = Some(stream);
                        return Ok(Change::Listed(objects.into_values().collect()));
                    }
                }
            }
        }
    }

    async fn paged(&mut self) -> Result<Change<T>, Error> {
        let failed = |error| Error::request(Attempt::List, &self.objects, error);
        let mut params = ListParams::default().limit(PAGE);
        params.field_selector = self.fields.clone();
        let mut objects = Vec::new();
        loop {
            let page = self.bounded(self.page(&params)).await?.map_err(failed)?;
            objects.extend(page.items);
            let next = page.metadata.continue_.filter(|token| !token.is_empty());
            if next.is_none() {
                let version = page.metadata.resource_version;
                let version = version.filter(|version| !version.is_empty());
                self.version = Some(version.ok_or_else(|| self.no_version(Attempt::List))?);
                return Ok(Change::Listed(objects));
            }
            params.continue_token = next;
        }
    }

    async fn page(&self, params: &ListParams) -> kube::Result<Page<T>> {
        let request = Request::new(P::Whole::url_path(&(), None)).list(params);
        let request = request.map_err(kube::Error::BuildRequest)?;
        let text = self.client.request_text(request).await?;
        page::parse(&text, self.trim).map_err(kube::Error::SerdeError)
    }

    async fn open(&self, list: bool, version: &str) -> Result<Stream, Error> {
        let params = WatchParams {
            field_selector: self.fields.clone(),
            timeout: Some(LASTS),
            send_initial_events: list,
            ..WatchParams::default()
        };
        let attempt = if list { Attempt::List } else { Attempt::Watch };
        match self.bounded(self.ask(&params, version)).await? {
            Ok(events) => Ok(Stream { events, begun: Instant::now() }),
            Err(error) => Err(Error::request(attempt, &self.objects, error)),
        }
    }

    async fn ask(&self, params: &WatchParams, version: &str) -> kube::Result<Events> {
        let request = Request::new(P::Whole::url_path(&(), None)).watch(params, version);
        let mut request = request.map_err(kube::Error::BuildRequest)?;
        request
            .headers_mut()
            .insert(ACCEPT, HeaderValue::from_static(events::accepted(self.wants_json)));
        Events::of(self.client.send(request.map(Body::from)).await?).await
    }

    async fn bounded<O>(&self, answer: impl Future<Output = O>) -> Result<O, Error> {
        timeout(ANSWER, answer).await.map_err(|_elapsed| Error::Silence {
            attempt: if self.version.is_none() { Attempt::List } else { Attempt::Watch },
            objects: self.objects.clone(),
            seconds: ANSWER.as_secs(),
        })
    }

    fn version_of(&self, object: &P) -> Result<String, Error> {
        let version = object.metadata().and_then(|it| it.resource_version.clone());
        version.filter(|it| !it.is_empty()).ok_or_else(|| self.no_version(Attempt::Watch))
    }

    fn no_version(&self, attempt: Attempt) -> Error {
        Error::NoVersion { attempt, objects: self.objects.clone() }
    }
}

/// Sends what a watch tells, as events, until nobody receives them any more. Failures are given to `report`, and tried again.
pub async fn forward<P: Part, T, E>(
    mut watch: Watch<P, T>,
    events: &Sender<E>,
    report: impl Fn(Error),
    mut event: impl FnMut(Change<T>) -> Option<E>,
) {
    loop {
        match watch.next().await {
            Err(error) => report(error),
            Ok(change) => {
                let Some(event) = event(change) else { continue };
                if events.send(event).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Whether the server no longer knows what came after the version that the watch was to begin at.
fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 410)
}

/// Whether something came that cannot be read.
pub(crate) const fn is_unreadable(error: &kube::Error) -> bool {
    matches!(error, kube::Error::SerdeError(_))
}

fn uid(object: &impl Part) -> Option<String> {
    object.metadata().and_then(|it: &Metadata| it.uid.clone())
}

/// Whether the server was asked for a streamed list and cannot do it, rather than not now or not
/// for this account. Seen: from Kubernetes 1.37 on etcd 3.4, code 500 with "the required storage
/// feature RequestWatchProgress is disabled"; where the feature gate is off, code 422.
fn does_not_stream(error: &kube::Error) -> bool {
    let later = |status: &Status| matches!(status.code, 401 | 403 | 410 | 429 | 503 | 504);
    matches!(error, kube::Error::Api(status) if !later(status))
}
