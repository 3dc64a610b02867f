//! Attachments as the CNI plugin podwire-policy tells them: over a socket, and in files that outlive
//! policyd.
//!
//! The [`Server`] answers the plugin. What needs the kernel it asks of the agent's loop, by a
//! [`Request`]; everything else it knows from the files.

use tokio::sync::oneshot;

use crate::attachment::{Attachment, PodReference};
use crate::model::NamespacedName;
use crate::plan::HostInterface;

mod desk;
mod server;
mod store;
#[cfg(test)]
mod tests;

pub use server::{Error, Places, Server};

/// What the agent's loop answers: once the kernel holds what was asked for, or with the reason why
/// it does not yet.
pub type Reply = oneshot::Sender<Result<(), String>>;

/// What the server wants of the agent's loop. One that does not answer, because it waits for a
/// commit, is waited for; who asked may be gone by then.
#[derive(Debug)]
pub enum Request {
    /// This container is attached.
    Attach {
        /// How.
        attachment: Attachment,
        /// When its rules are in the kernel, and those of its addresses' former owners are not.
        reply: Reply,
    },
    /// This container is attached no more.
    Detach {
        /// Its id.
        container_id: String,
        /// When its addresses pass the gate no more.
        reply: Reply,
    },
    /// Can rules be brought into the kernel?
    Status {
        /// At once.
        reply: Reply,
    },
}

impl From<&attachment::Attachment> for Attachment {
    fn from(told: &attachment::Attachment) -> Self {
        let pod = told.pod.as_ref().map(|pod| PodReference {
            name: NamespacedName { namespace: pod.namespace.clone(), name: pod.name.clone() },
            uid: pod.uid.clone(),
        });
        let interface = told
            .host_interface
            .as_ref()
            .map(|it| HostInterface { name: it.name.clone(), bridge: it.bridge.clone() });
        Self {
            container_id: told.container_id.clone(),
            pod,
            addresses: told.addresses.clone(),
            interface,
        }
    }
}
