//! The kernel's side: what it holds is changed to what the plan says, by the programs iptables and
//! ipset or by netlink to nf_tables.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnetwork::IpNetwork;
use runner::Runner;

use crate::closed;
use crate::ingress::{self, Sources};
use crate::iptables::{Family, Settings};
use crate::plan::{Changes, Endpoint, Plan};

mod error;
pub(crate) mod flows;
mod iptables;
mod kind;
pub(crate) mod left_over;
mod nftables;
mod owners;
mod programs;
mod variant;
mod written;

pub use error::Error;
use iptables::Iptables;
pub use kind::Kind;
use left_over::LeftOver;
use nftables::Nftables;
pub(crate) use nftables::held::Held;
use owners::Owners;
pub use programs::{Programs, Ran};
pub use variant::variant;

/// The rules and sets of this node, by one of the two ways to have them.
#[derive(Debug)]
pub struct Dataplane<R> {
    backend: Backend<R>,
    /// The other way, until what it left is removed.
    former: Option<Backend<R>>,
}

#[derive(Debug)]
enum Backend<R> {
    Iptables(Box<Iptables<R>>),
    Nftables(Box<Nftables>),
}

impl<R> Backend<R> {
    const fn kind(&self) -> Kind {
        match self {
            Self::Iptables(_) => Kind::Iptables,
            Self::Nftables(_) => Kind::Nftables,
        }
    }
}

/// Something of ours in the kernel that is otherwise than it was left.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Difference {
    /// A chain: rules are missing, changed, or somebody else's, or it is not there at all.
    #[error("chain {1} ({0})")]
    Chain(String, String),
    /// The rule that leads from the kernel's own chain to ours is missing, or not the first.
    #[error("our rule in {1} ({0})")]
    Hook(String, String),
    /// A set has more or fewer members, or is not there.
    #[error("set {0}")]
    Set(String),
}

/// What a quick look at the kernel shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Glance {
    /// Sets that are otherwise than they were left.
    pub differences: Vec<Difference>,
    /// Whether tables may be so too, and should be compared.
    pub is_suspect: bool,
}

/// What the kernel has of ours, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Chains of both families.
    pub chains: usize,
    /// Rules of both families.
    pub rules: usize,
    /// Sets of both families.
    pub sets: usize,
    /// Their members.
    pub members: usize,
}

/// What was read of the kernel is what it holds for so long. Others who change it meanwhile are noticed, as
/// at any other time, but only after what was read has been gone by.
const READ_LASTS: Duration = Duration::from_secs(1);

/// Has both backends do the same.
macro_rules! either {
    ($self:expr, $backend:ident => $work:expr) => {
        match $self {
            Backend::Iptables($backend) => $work,
            Backend::Nftables($backend) => $work,
        }
    };
}

impl<R: Runner + Send> Dataplane<R> {
    /// The dataplane of a node with these families. [`Self::adopt`] must be called before anything else. That
    /// of nf_tables runs no programs, and stays with the namespace of whoever calls it first.
    pub fn new(kind: Kind, programs: Programs<R>, families: &[Family], settings: Settings) -> Self {
        let tables = Nftables::new(families, settings.clone());
        let tables = Backend::Nftables(Box::new(tables));
        let programs = Backend::Iptables(Box::new(Iptables::new(programs, families, settings)));
        match kind {
            Kind::Iptables => Self { backend: programs, former: Some(tables) },
            Kind::Nftables => Self { backend: tables, former: Some(programs) },
        }
    }

    /// Reads what the kernel holds of ours, whoever put it there: [`Self::adopt`] does so itself, but
    /// when this was just done. Who starts has time for it while he waits for the objects.
    ///
    /// # Errors
    /// [`Error`] when the kernel cannot be read.
    pub fn read(&mut self) -> Result<(), Error> {
        either!(&mut self.backend, it => it.read())
    }

    /// The kernel holds nothing of ours, as in a namespace that was just made: nobody needs to look.
    pub fn assume_nothing(&mut self) {
        either!(&mut self.backend, it => it.assume_nothing());
    }

    /// Makes what the kernel holds what the plan says.
    ///
    /// # Errors
    /// [`Error`] when that fails; what was changed by then stays, and never opens anything.
    pub fn adopt(&mut self, plan: &Plan) -> Result<(), Error> {
        either!(&mut self.backend, it => it.adopt(plan))?;
        // Until now both were in force: nothing was open.
        if let Some(former) = &mut self.former {
            let is_there = match former {
                Backend::Iptables(_) => kind::are_ours_in_iptables()?,
                Backend::Nftables(it) => it.is_there()?,
            };
            if is_there {
                let cleaned = either!(&mut *former, it => it.clean_up());
                let kind = former.kind();
                cleaned.map_err(|source| Error::Former { kind, source: Box::new(source) })?;
                tracing::info!("the rules of the other backend are removed");
            }
        }
        self.former = None;
        Ok(())
    }

    /// Whether the changes need something that only [`Self::adopt`] makes: then it must be next, and not
    /// [`Self::apply`].
    #[must_use]
    pub fn needs_adoption(&self, changes: &Changes) -> bool {
        either!(&self.backend, it => it.needs_adoption(changes))
    }

    /// Makes the changes.
    ///
    /// # Errors
    /// [`Error`]: then [`Self::adopt`] must be next.
    pub fn apply(&mut self, changes: &Changes) -> Result<(), Error> {
        either!(&mut self.backend, it => it.apply(changes))
    }

    /// From which addresses packets may come by the interfaces of endpoints that come with the changes, or
    /// with other addresses: by others who are there, too. Most changes are of policies alone.
    pub(crate) fn sources_after(&self, changes: &Changes) -> Sources {
        let written = either!(&self.backend, it => it.endpoints());
        let is_as_before = |key: &String, it: &Endpoint| {
            let held = written.get(key);
            held.is_some_and(|held| {
                (&held.interface, &held.addresses) == (&it.interface, &it.addresses)
            })
        };
        let coming = || changes.endpoints.iter().filter_map(|(key, it)| Some((key, it.as_ref()?)));
        let moved = coming().filter(|(key, it)| !is_as_before(key, it));
        let moved = moved.filter_map(|(_, it)| Some(&it.interface.as_ref()?.name));
        let moved: BTreeSet<_> = moved.collect();
        if moved.is_empty() {
            return Sources::new();
        }
        let is_there =
            |it: &&Endpoint| it.interface.as_ref().is_some_and(|it| moved.contains(&it.name));
        let staying = written.iter().filter(|(key, _)| !changes.endpoints.contains_key(*key));
        ingress::sources(staying.chain(coming()).map(|(_, it)| it).filter(is_there))
    }

    /// Has the rules gate these ranges; [`Self::adopt`] must be next.
    pub fn set_gated(&mut self, gated: Vec<IpNetwork>) {
        either!(&mut self.backend, it => it.set_gated(gated));
    }

    /// The programs that ran since this was last asked, and the netlink port by which nf_tables was changed.
    pub fn take_ran(&mut self) -> Ran {
        either!(&mut self.backend, it => it.take_ran())
    }

    /// What is known of addresses that flows may be left of, for who looks at the flows.
    pub(crate) fn left_over(&self) -> LeftOver {
        either!(&self.backend, it => it.owners().left_over())
    }

    /// How many flows were cut since this was last asked.
    pub fn take_cut(&mut self) -> usize {
        either!(&mut self.backend, it => it.take_cut())
    }

    /// Opens the closed interfaces of which the rules are in the kernel, and forgets those that
    /// `is_gone` tells; the netlink port of what was written.
    ///
    /// # Errors
    /// [`netlink::Error`], also those of `is_gone`.
    pub fn open_interfaces(
        &self,
        mut is_gone: impl FnMut(&str) -> Result<bool, netlink::Error>,
    ) -> Result<Option<u32>, netlink::Error> {
        let bound = either!(&self.backend, it => it.owners().interfaces());
        closed::open(|name| Ok(bound.contains(name) || is_gone(name)?))
    }

    /// Where the kernel is otherwise than it was left. Of ipsets only the numbers of members are
    /// compared.
    ///
    /// # Errors
    /// [`Error`] when the kernel cannot be read.
    pub fn differences(&mut self) -> Result<Vec<Difference>, Error> {
        either!(&mut self.backend, it => it.differences())
    }

    /// What can be seen of differences without running a program, of what nobody tells changes of: of ipsets all
    /// that [`Self::differences`] sees; of iptables' own tables, whether somebody changed them.
    ///
    /// # Errors
    /// [`Error`] when the kernel cannot be asked.
    pub fn glance(&mut self) -> Result<Glance, Error> {
        match &mut self.backend {
            Backend::Iptables(it) => it.glance(),
            // All changes are told.
            Backend::Nftables(_) => Ok(Glance::default()),
        }
    }

    /// By which way it tells the kernel.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.backend.kind()
    }

    /// The names of the tables of nf_tables that rules of ours are in.
    #[must_use]
    pub fn table_names(&self) -> Vec<&'static str> {
        either!(&self.backend, it => it.table_names())
    }

    /// What the kernel has of ours, in numbers.
    #[must_use]
    pub fn counts(&self) -> Counts {
        either!(&self.backend, it => it.counts())
    }

    /// Removes everything of ours from the kernel.
    ///
    /// # Errors
    /// [`Error`] when that fails.
    pub fn clean_up(&mut self) -> Result<(), Error> {
        match either!(&mut self.backend, it => it.clean_up()) {
            // A node without the programs has none of what they make.
            Err(Error::Run(runner::Error::NotFound(_))) if !kind::are_ours_in_iptables()? => Ok(()),
            done => done,
        }
    }
}

/// Endpoints by their keys.
type Endpoints = BTreeMap<String, Endpoint>;
