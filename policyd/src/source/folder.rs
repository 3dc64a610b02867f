//! A folder of manifests as the source of objects: for nodes without a cluster. See [`cluster::folder`].

mod events;
mod kinds;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use cluster::folder::{self, Report};
use tokio::sync::mpsc::Sender;

use self::events::events;
use self::kinds::Object;
pub(crate) use self::kinds::{Kinds, Written};
use super::{Event, Node};

/// A folder of manifests, and the node that policyd runs on.
#[derive(Debug)]
pub struct Folder {
    /// The folder.
    pub dir: PathBuf,
    /// The node. Pods whose manifest names none are on it.
    pub node: Node,
}

impl Folder {
    /// Sends what the folder holds and how it changes, until nobody receives it any more. What the
    /// manifests' author should know is given to `report`, once for as long as it stands; `defective`
    /// is told, after each reading, how many files may have objects that could not be read, and how many
    /// objects are left out as others have their names.
    pub async fn run(
        self,
        sender: Sender<Event>,
        report: impl FnMut(&Report),
        defective: impl FnMut(usize),
    ) {
        let kinds = Kinds { node: self.node.name.clone(), keep: Object::from };
        if sender.send(Event::Node(self.node)).await.is_err() {
            return;
        }
        folder::Folder::new(self.dir, kinds).run(sender, events, report, defective).await;
    }
}
