//! What is done about each request of the plugin.

use std::sync::{Mutex, MutexGuard, PoisonError};

use attachment::{Answer, Attachment, Key};
use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};

use super::store::{Changes, Store};
use super::{Reply, Request};
use crate::chain;

#[derive(Debug)]
pub(super) struct Desk {
    store: Mutex<Store>,
    requests: mpsc::Sender<Request>,
}

/// The agent's loop has ended: nobody is left to answer.
#[derive(Debug)]
pub(super) struct Ended;

impl Desk {
    pub(super) const fn new(store: Store, requests: mpsc::Sender<Request>) -> Self {
        Self { store: Mutex::new(store), requests }
    }

    pub(super) async fn answer(&self, request: attachment::Request) -> Result<Answer, Ended> {
        match request {
            attachment::Request::Attach(attachment) => self.attach(attachment).await,
            attachment::Request::Detach(key) => self.detach(&key).await,
            attachment::Request::Check { key, addresses } => {
                let held = self.store().find(&key);
                Ok(match held {
                    Ok(Some(held)) if held.addresses == addresses => Answer::Done {},
                    Ok(Some(held)) => refused(format!(
                        "policyd knows {} with the addresses {:?}, not {addresses:?}",
                        told(&key),
                        held.addresses
                    )),
                    Ok(None) => refused(format!("policyd knows nothing of {}", told(&key))),
                    Err(error) => not_yet(&error),
                })
            }
            attachment::Request::Gc { network, valid } => {
                self.refresh().await?;
                let garbage = self.store().garbage(&network, &valid);
                let gone = join_all(garbage.iter().map(|id| self.forget(id))).await;
                let bad = gone.into_iter().find(|it| !matches!(it, Ok(Answer::Done {})));
                bad.unwrap_or(Ok(Answer::Done {}))
            }
            attachment::Request::Status {} => {
                let status = self.ask(|reply| Request::Status { reply }).await?;
                Ok(status.map_or_else(|problem| Answer::NotYet { problem }, |()| Answer::Done {}))
            }
        }
    }

    async fn attach(&self, attachment: Attachment) -> Result<Answer, Ended> {
        let key = attachment.key();
        if let Some(other) = self.store().other_interface(&key) {
            return Ok(refused(format!(
                "container {:?} is attached by {other:?}, so {:?} is not on its default network (does another configuration say so?)",
                key.container_id, key.ifname
            )));
        }
        let attached = super::Attachment::from(&attachment);
        // Before anything is answered: whoever starts next finds it.
        let former = self.store().put(attachment);
        let former = match former {
            Ok(former) => former,
            Err(error) => return Ok(not_yet(&error)),
        };
        for container_id in former {
            tracing::warn!(%container_id, by = %attached.container_id, "its addresses or its pod are another container's now: it is taken as gone");
            self.tell(|reply| Request::Detach { container_id, reply }).await?;
        }
        let committed = self.ask(|reply| Request::Attach { attachment: attached, reply }).await?;
        Ok(committed.map_or_else(|problem| Answer::NotYet { problem }, |()| Answer::Done {}))
    }

    async fn detach(&self, key: &Key) -> Result<Answer, Ended> {
        // A file that is damaged goes as well.
        let is_nothing = matches!(self.store().find(key), Ok(None));
        if is_nothing {
            return Ok(Answer::Done {});
        }
        self.forget(&key.container_id).await
    }

    /// Its file goes last: whoever is killed in between leaves it for the next.
    async fn forget(&self, container_id: &str) -> Result<Answer, Ended> {
        let id = container_id.to_owned();
        let gone = self.ask(|reply| Request::Detach { container_id: id, reply }).await?;
        if let Err(problem) = gone {
            return Ok(Answer::NotYet { problem });
        }
        let removed = self.store().remove(container_id);
        Ok(removed.map_or_else(|error| not_yet(&error), |()| Answer::Done {}))
    }

    /// Tells the loop what the plugin changed by itself, because nobody answered it in time.
    pub(super) async fn refresh(&self) -> Result<(), Ended> {
        let Changes { come, gone, .. } = self.changes();
        for container_id in gone {
            self.tell(|reply| Request::Detach { container_id, reply }).await?;
        }
        for attachment in come {
            let attachment = super::Attachment::from(&attachment);
            self.tell(|reply| Request::Attach { attachment, reply }).await?;
        }
        Ok(())
    }

    /// Takes in what others changed of the files, and logs what is wrong with them.
    pub(super) fn changes(&self) -> Changes {
        let changes = self.store().refresh();
        let changes =
            changes.unwrap_or_else(|error| Changes { problems: vec![error], ..Changes::default() });
        for problem in &changes.problems {
            tracing::warn!("{}; left out", chain(problem));
        }
        changes
    }

    /// The lock is never held while something is waited for.
    fn store(&self) -> MutexGuard<'_, Store> {
        // What a panic left is still what the files say, or will be after the next refresh.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(
        &self,
        request: impl FnOnce(Reply) -> Request,
    ) -> Result<Result<(), String>, Ended> {
        self.tell(request).await?.await.map_err(|_| Ended)
    }

    async fn tell(
        &self,
        request: impl FnOnce(Reply) -> Request,
    ) -> Result<oneshot::Receiver<Result<(), String>>, Ended> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| Ended)?;
        Ok(answer)
    }
}

fn told(key: &Key) -> String {
    format!("interface {:?} of container {:?}", key.ifname, key.container_id)
}

const fn refused(problem: String) -> Answer {
    Answer::Refused { problem }
}

fn not_yet(error: &attachment::Error) -> Answer {
    Answer::NotYet { problem: chain(error) }
}
