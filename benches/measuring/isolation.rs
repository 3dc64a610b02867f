//! Folders of a process of its own.
#![expect(clippy::expect_used, reason = "a measurement that cannot begin ends with the reason")]

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Gives this process empty folders in the place of these, which go with it.
///
/// # Panics
/// Without root.
pub fn isolate(folders: &[&str]) {
    let none = None::<&str>;
    let cover = |at: &&str| mount(Some("tmpfs"), *at, Some("tmpfs"), MsFlags::empty(), none);
    unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
        .and_then(|()| folders.iter().try_for_each(cover))
        .expect("namespaces need root");
}
