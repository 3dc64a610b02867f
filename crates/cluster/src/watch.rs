//! Watching all objects of a kind.

use std::collections::HashMap;
use std::fmt::Debug;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::{Request, Status};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};

use crate::backoff::Backoff;
use crate::page::{self, Page};
use crate::{ANSWER, Attempt, Error};

#[cfg(test)]
mod tests;

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

/// A kind of objects that the program knows.
pub trait Object:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
}

impl<K> Object for K where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
}

/// A watch of all objects of a kind. Of each object `K` only what `trim` makes of it is kept,
/// while a list is still being read as well.
pub struct Watch<K, T> {
    client: Client,
    objects: String,
    fields: Option<String>,
    trim: fn(&K) -> T,
    /// Where the next watch begins; `None`: with a list.
    version: Option<String>,
    stream: Option<Stream<K>>,
    backoff: Backoff,
}

struct Stream<K> {
    events: BoxStream<'static, kube::Result<WatchEvent<K>>>,
    begun: Instant,
}

impl<K: Object, T> Watch<K, T> {
    /// A watch of the objects of all namespaces.
    #[must_use]
    pub fn new(client: Client, trim: fn(&K) -> T) -> Self {
        Self {
            client,
            objects: K::plural(&()).into_owned(),
            fields: None,
            trim,
            version: None,
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
            Err(Error::Request { source, .. }) if is_gone(&source) => self.version = None,
            Err(error) => return Err(error),
        }
        Ok(None)
    }

    /// What an event of the watch means.
    fn follow(
        &mut self,
        event: Option<kube::Result<WatchEvent<K>>>,
    ) -> Result<Option<Change<T>>, Error> {
        match event {
            Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                self.version = Some(self.version_of(&object)?);
                Ok(Some(Change::Applied((self.trim)(&object))))
            }
            Some(Ok(WatchEvent::Deleted(object))) => {
                self.version = Some(self.version_of(&object)?);
                Ok(Some(Change::Removed((self.trim)(&object))))
            }
            Some(Ok(WatchEvent::Bookmark(bookmark))) => {
                self.version = Some(bookmark.metadata.resource_version);
                Ok(None)
            }
            Some(Ok(WatchEvent::Error(status))) => self.refused(kube::Error::Api(status)),
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
            self.version = None;
            return Ok(None);
        }
        if is_unreadable(&error) {
            self.version = None;
        }
        Err(Error::request(Attempt::Watch, &self.objects, error))
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
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    objects.insert(object.meta().uid.clone(), (self.trim)(&object));
                }
                WatchEvent::Deleted(object) => _ = objects.remove(&object.meta().uid),
                WatchEvent::Error(status) => return Err(failed(kube::Error::Api(status))),
                WatchEvent::Bookmark(bookmark) => {
                    if bookmark.metadata.annotations.contains_key(END_OF_LIST) {
                        self.version = Some(bookmark.metadata.resource_version);
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
        let request = Request::new(K::url_path(&(), None)).list(params);
        let request = request.map_err(kube::Error::BuildRequest)?;
        let text = self.client.request_text(request).await?;
        page::parse(&text, self.trim).map_err(kube::Error::SerdeError)
    }

    async fn open(&self, list: bool, version: &str) -> Result<Stream<K>, Error> {
        let params = WatchParams {
            field_selector: self.fields.clone(),
            timeout: Some(LASTS),
            send_initial_events: list,
            ..WatchParams::default()
        };
        let attempt = if list { Attempt::List } else { Attempt::Watch };
        let api = Api::<K>::all(self.client.clone());
        match self.bounded(api.watch(&params, version)).await? {
            Ok(events) => Ok(Stream { events: events.boxed(), begun: Instant::now() }),
            Err(error) => Err(Error::request(attempt, &self.objects, error)),
        }
    }

    async fn bounded<O>(&self, answer: impl Future<Output = O>) -> Result<O, Error> {
        timeout(ANSWER, answer).await.map_err(|_elapsed| Error::Silence {
            attempt: if self.version.is_none() { Attempt::List } else { Attempt::Watch },
            objects: self.objects.clone(),
            seconds: ANSWER.as_secs(),
        })
    }

    fn version_of(&self, object: &K) -> Result<String, Error> {
        let version = object.meta().resource_version.clone();
        version.filter(|it| !it.is_empty()).ok_or_else(|| self.no_version(Attempt::Watch))
    }

    fn no_version(&self, attempt: Attempt) -> Error {
        Error::NoVersion { attempt, objects: self.objects.clone() }
    }
}

/// Whether the server no longer knows what came after the version that the watch was to begin at.
fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 410)
}

/// Whether an event came that cannot be read. kube takes most such events for a status that says
/// nothing.
pub(crate) fn is_unreadable(error: &kube::Error) -> bool {
    match error {
        kube::Error::SerdeError(_) => true,
        kube::Error::Api(status) => status.code == 0,
        _ => false,
    }
}

/// Whether the server was asked for a streamed list and cannot do it, rather than not now or not
/// for this account. Seen: from Kubernetes 1.37 on etcd 3.4, code 500 with "the required storage
/// feature RequestWatchProgress is disabled"; where the feature gate is off, code 422.
fn does_not_stream(error: &kube::Error) -> bool {
    let later = |status: &Status| matches!(status.code, 401 | 403 | 410 | 429 | 503 | 504);
    matches!(error, kube::Error::Api(status) if !later(status))
}
