//! What services are in the kernel: their tables of nf_tables, kept as plans say by what changes alone.

mod error;
mod family;
mod found;
mod transaction;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use netlink::nftables::Client;

use crate::model::NamespacedName;
use crate::nftables::{GUARD_LOCALHOST, Local, Settings, table};
use crate::plan::{At, Plan};
pub use error::Error;
use family::Family;
pub(crate) use found::{Found, State};
pub use transaction::Written;
pub(crate) use transaction::hash;

/// The tables of both families.
#[derive(Debug)]
pub struct Dataplane {
    client: Client,
    families: Vec<Family>,
}

impl Dataplane {
    /// In the namespace of the calling thread. Nothing is changed yet.
    ///
    /// # Errors
    /// [`Error::NoNftables`], and [`Error::Kernel`] without a socket.
    pub fn open(settings: &Settings, families: &[bool]) -> Result<Self, Error> {
        let client = Client::open()?.ok_or(Error::NoNftables)?;
        let families = families.iter().map(|it| Family::new(*it, settings.clone())).collect();
        Ok(Self { client, families })
    }

    /// Pods are known by this from the next [`Self::adopt`] on.
    pub fn know_pods_by(&mut self, local: &Local) {
        self.families.iter_mut().for_each(|it| it.know_pods_by(local.clone()));
    }

    /// Makes the kernel have these services and no others, whatever it had. What is right by now is not touched.
    ///
    /// # Errors
    /// [`Error`]: the kernel is read anew by the next call.
    pub fn adopt(&mut self, plans: &BTreeMap<NamespacedName, Arc<Plan>>) -> Result<Written, Error> {
        let mut written = Written::default();
        for family in &mut self.families {
            written += family.adopt(&mut self.client, plans)?;
        }
        Ok(written)
    }

    /// The places that [`Self::adopt`] has found in the kernel, and that no service had: flows may lead there still.
    pub fn take_left(&mut self) -> BTreeSet<At> {
        self.families.iter_mut().flat_map(Family::take_left).collect()
    }

    /// Changes these services; `None`: there is no such service any more.
    ///
    /// # Errors
    /// [`Error`]: what the kernel has now is only known after [`Self::adopt`].
    pub fn apply(
        &mut self,
        changes: &BTreeMap<NamespacedName, Option<Arc<Plan>>>,
    ) -> Result<Written, Error> {
        let mut written = Written::default();
        for family in &mut self.families {
            written += family.apply(&mut self.client, changes)?;
        }
        Ok(written)
    }

    /// The number of the generation of the namespace's rules, which is another one after each change; `None` where the kernel
    /// does not tell it.
    pub fn generation(&mut self) -> Option<u32> {
        self.client.generation().ok().flatten()
    }

    /// The netlink port by which others are told that a change came from here, once there was one.
    #[must_use]
    pub fn port(&self) -> Option<u32> {
        self.client.port().ok()
    }

    /// Removes chains that nothing leads to any more. Not right after a change, as packets may still be on their
    /// way there.
    ///
    /// # Errors
    /// [`Error`].
    pub fn tidy(&mut self) -> Result<Written, Error> {
        let mut written = Written::default();
        for family in &mut self.families {
            written += family.tidy(&mut self.client)?;
        }
        Ok(written)
    }

    /// Whether the kernel has what guards 127.0.0.0/8, from now or before.
    ///
    /// # Errors
    /// [`Error::Kernel`].
    pub fn guards_localhost(&mut self) -> Result<bool, Error> {
        let held = self.client.table(table(true))?;
        Ok(held.is_some_and(|it| it.chains.iter().any(|it| it.name == GUARD_LOCALHOST)))
    }

    /// Removes the tables, if they are there.
    ///
    /// # Errors
    /// [`Error::Kernel`].
    pub fn remove(&mut self) -> Result<(), Error> {
        for is_ipv4 in [true, false] {
            self.client.remove(table(is_ipv4))?;
        }
        Ok(())
    }
}
