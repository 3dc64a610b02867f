//! What the CNI plugin podwire-policy and policyd tell each other of containers' attachments.
//!
//! The plugin connects to policyd's unix socket, writes one [`Request`] and reads one [`Answer`]:
//! each a JSON document on a line of its own. Fields that a reader does not know are ignored, so a
//! newer side may add some; [`VERSION`] changes only when old readers would misunderstand. What is
//! attached is also in files ([`Files`]), one for each container: policyd reads them when it starts,
//! and the plugin writes them while policyd is away.

mod alive;
mod client;
mod error;
mod files;
mod message;

pub use alive::{last_alive, show_alive};
pub use client::ask;
pub use error::Error;
pub use files::Files;
pub use message::{Answer, Attachment, HostInterface, Key, Pod, Request, VERSION};

/// Where policyd listens.
pub const SOCKET: &str = "/run/podwire/policyd.sock";
/// Where the files are.
pub const FOLDER: &str = "/run/podwire/attachments";
/// A file that policyd touches every few seconds for as long as it works: its modification time is
/// when policyd was last seen.
pub const ALIVE: &str = "/run/podwire/policyd.alive";
/// Bytes of the longest line that either side reads: 5,000 valid attachments, where a node has
/// some hundred.
pub const LINE_LIMIT: u64 = 1 << 20;
