//! The socket that the plugin connects to.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use attachment::LINE_LIMIT;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{self, Instant, MissedTickBehavior, timeout};

use super::Request;
use super::desk::Desk;
use super::store::Store;
use crate::attachment::Attachment;
use crate::chain;

/// As many calls are answered at once; more wait in the socket's queue.
const MOST_CALLS: usize = 256;
/// How long a caller may take to say what it wants, and then to hear the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the loop may take. The plugin waits for a shorter time, and does it by itself.
const LONGEST_WORK: Duration = Duration::from_mins(1);
/// How often the files are looked at for what the plugin did by itself.
const REFRESH: Duration = Duration::from_secs(10);
/// The pause after a connection that could not be taken: there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Where the server is, and its files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The socket; its folder is made readable by root alone.
    pub socket: PathBuf,
    /// The folder of the attachments' files.
    pub files: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self { socket: attachment::SOCKET.into(), files: attachment::FOLDER.into() }
    }
}

/// Why nobody can be answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket cannot be made.
    #[error("cannot {what} {} (is /run/podwire of the host mounted, and writable?)", path.display())]
    Socket {
        /// What was tried.
        what: &'static str,
        /// The socket, or its folder.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Answers the plugin.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    desk: Arc<Desk>,
}

impl Server {
    /// Listens, in the place of whoever did before, and reads the files. Who connects from now on is
    /// answered once [`Self::run`] runs. The loop must know the attachments that are returned before
    /// it first writes, or their traffic would be interrupted.
    ///
    /// # Errors
    /// [`Error`]. A file that cannot be read is logged and left out.
    pub fn bind(
        places: &Places,
        requests: mpsc::Sender<Request>,
    ) -> Result<(Self, Vec<Attachment>), Error> {
        // Listening comes first: the plugin either reaches us or has written its file by now.
        let listener = bind(&places.socket)?;
        let desk = Desk::new(Store::new(&places.files), requests);
        let attachments = desk.changes().come.iter().map(Attachment::from).collect();
        Ok((Self { listener, desk: Arc::new(desk) }, attachments))
    }

    /// Answers until the loop has ended.
    pub async fn run(self) {
        let calls = Arc::new(Semaphore::new(MOST_CALLS));
        let mut refresh = time::interval_at(Instant::now() + REFRESH, REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = refresh.tick() => if self.desk.refresh().await.is_err() { return },
                accepted = self.accept(&calls) => match accepted {
                    Ok((stream, call)) => {
                        let desk = Arc::clone(&self.desk);
                        tokio::spawn(async move {
                            serve(stream, &desk).await;
                            drop(call);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a call of the CNI plugin could not be taken");
                        time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    async fn accept(
        &self,
        calls: &Arc<Semaphore>,
    ) -> io::Result<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
        let call = Arc::clone(calls).acquire_owned().await.map_err(io::Error::other)?;
        Ok((self.listener.accept().await?.0, call))
    }
}

/// Makes the socket under another name first: it appears with its rights, and in one step.
fn bind(socket: &Path) -> Result<UnixListener, Error> {
    let failed = |what, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Socket { what, path, source }
    };
    if let Some(folder) = socket.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .and_then(|()| fs::set_permissions(folder, Permissions::from_mode(0o700)))
            .map_err(failed("make the folder", folder))?;
    }
    let new = socket.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", &new)(error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&new).map_err(failed("listen at", &new))?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))
        .and_then(|()| fs::rename(&new, socket))
        .map_err(failed("listen at", socket))?;
    Ok(listener)
}

/// One call: a line in, a line out.
async fn serve(mut stream: UnixStream, desk: &Desk) {
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 => {}
        peer => {
            let uid = peer.map(|it| it.uid()).ok();
            return tracing::warn!(?uid, "refused a call of somebody who is not root");
        }
    }
    let outcome = timeout(LONGEST_WORK, converse(&mut stream, desk)).await;
    if let Ok(Err(error)) = outcome {
        tracing::debug!(%error, "a call of the CNI plugin was not answered");
    }
}

async fn converse(stream: &mut UnixStream, desk: &Desk) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut line = Vec::new();
    let mut reader = BufReader::new(reader.take(LINE_LIMIT));
    timeout(PATIENCE, reader.read_until(b'\n', &mut line)).await??;
    let answer = match attachment::Request::decode(&line) {
        Ok(request) => match desk.answer(request).await {
            Ok(answer) => answer,
            // The plugin finds the connection closed, and goes on as without us.
            Err(_) => return Ok(()),
        },
        Err(error) => attachment::Answer::Refused { problem: chain(&error) },
    };
    timeout(PATIENCE, writer.write_all(&answer.encode())).await?
}
