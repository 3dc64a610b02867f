//! The part of nf_tables that is needed: to change chains and rules in one transaction, without
//! starting a program; to find the rules that lead to a chain; to hear of changes; to keep all but IP
//! from the ports of bridges; and to close interfaces.

mod batch;
mod change;
mod changes;
mod closed;
mod expression;
mod hooks;
mod listing;
mod meanwhile;
mod message;
mod only_ip;
mod rule;
mod set;
mod translation;

use std::collections::BTreeMap;

use nix::errno::Errno;
use ruleset::nft::{Encoded, Family, Rule, Table};

use crate::Error;
use crate::netfilter::message::{HEADERS, Message};
use crate::netfilter::{Socket, end, refused};
pub use batch::Batch;
pub use change::Change;
pub use changes::{Changes, Generation};
pub use closed::{Closed, Sides, close_interface};
pub use expression::IptablesRule;
pub use listing::{Lasting, Listing};
use meanwhile::Extent;
use message::{DORMANT, OWNED};
pub use only_ip::{Held, OnlyIp};
pub use rule::{Addressed, Jump, PortRule};
pub use translation::Translation;

/// A rule that the kernel holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRule {
    /// Names it within its table.
    pub handle: u64,
    /// Its comment.
    pub comment: Option<String>,
    /// How many packets it has counted, if it counts any.
    pub packets: Option<u64>,
}

/// A set or map that the kernel holds, without its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldSet {
    /// Its name.
    pub name: String,
    flags: u32,
    key_type: u32,
    key_size: u32,
    data_type: u32,
    is_counted: bool,
}

/// What elements of a set have counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Those that have been found for packets, with how many.
    pub elements: Vec<(Encoded, u64)>,
    /// Whether they are all: others changed nothing while they were listed. Else some may be missing, or twice.
    pub is_whole: bool,
}

/// A table that the kernel holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldTable {
    /// Whether its rules are in force: of a dormant one (`NFT_TABLE_F_DORMANT`) they are not.
    pub is_awake: bool,
    /// Its chains, but for those that are part of a rule (`jump { ... }`).
    pub chains: Vec<HeldChain>,
}

/// A chain that the kernel holds, without its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldChain {
    /// Its name.
    pub name: String,
    base: Option<message::HeldBase>,
}

/// A chain that the kernel calls, with its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// The family of its table.
    pub family: Family,
    /// The name of its table.
    pub table: String,
    /// The chain.
    pub chain: HeldChain,
}

impl Called {
    /// Its table.
    #[must_use]
    pub fn table(&self) -> Table<'_> {
        Table { family: self.family, name: &self.table }
    }
}

/// An nf_tables socket of the namespace in which it was opened.
///
/// Closing it waits until the kernel has freed what was deleted, an RCU grace period (8 to 19 ms),
/// and keeps everybody else from changing rules meanwhile (`nft_rcv_nl_event`): worth doing late,
/// when that time has passed anyway, or [leaving](Self::leave) to the kernel. Used in that namespace.
#[derive(Debug)]
pub struct Client {
    socket: Socket,
    /// Whether something was deleted by it.
    has_deleted: bool,
}

impl Client {
    /// Opens a socket in the calling thread's namespace; `None` when the kernel has no nf_tables.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn open() -> Result<Option<Self>, Error> {
        let socket = Socket::open("an nf_tables")?;
        Ok(socket.map(|socket| Self { socket, has_deleted: false }))
    }

    /// The number of the generation of the namespace's rules: another one after each change. `None` when the
    /// kernel has no nf_tables: sockets there are for all of netfilter.
    ///
    /// # Errors
    /// [`Error`], also without `CAP_NET_ADMIN`.
    pub fn generation(&mut self) -> Result<Option<u32>, Error> {
        let what = "ask for the generation of nf_tables";
        let sequence = self.socket.next();
        self.socket.send(&Message::get_generation().numbered(sequence).into_bytes(), what)?;
        self.socket.receive(what, sequence..=sequence, |answer| {
            match answer.code().map(|code| (code, Errno::from_raw(code))) {
                // `nfnetlink_rcv_msg`.
                Some((_, Errno::EINVAL | Errno::EOPNOTSUPP)) => return Ok(Some(None)),
                Some((code, _)) => return Err(refused(what.into(), code)),
                None => {}
            }
            let id = changes::read_id(answer.bytes.get(HEADERS..).unwrap_or_default());
            let missing = || Error::Answer { what: what.into(), problem: "no number".into() };
            Ok(Some(Some(id.ok_or_else(missing)?)))
        })
    }

    /// Whether a table has a chain.
    ///
    /// # Errors
    /// [`Error`], also without `CAP_NET_ADMIN`, which nf_tables asks of every question.
    pub fn has_chain(&mut self, table: Table<'_>, chain: &str) -> Result<bool, Error> {
        let what = format!("look for chain {chain:?} in nf_tables");
        Ok(self.get(Message::get_chain(table, chain), &what)?.is_some())
    }

    /// A chain without its rules; `None` when there is none of that name.
    ///
    /// # Errors
    /// [`Error`], also without `CAP_NET_ADMIN`.
    pub fn chain(&mut self, table: Table<'_>, chain: &str) -> Result<Option<HeldChain>, Error> {
        let what = format!("look for chain {chain:?} in nf_tables");
        let found = self.get(Message::get_chain(table, chain), &what)?;
        Ok(found.and_then(|it| message::read_chain(&it, table)))
    }

    /// Whether there is a table: asked for by its name, whatever is in it.
    ///
    /// # Errors
    /// [`Error`], also without `CAP_NET_ADMIN`.
    pub fn has_table(&mut self, table: Table<'_>) -> Result<bool, Error> {
        let what = format!("look for table {table} in nf_tables");
        Ok(self.get(Message::get_table(table), &what)?.is_some())
    }

    /// The names of a table's chains, as [`Self::table`] tells them; `None` when there is no such table.
    ///
    /// # Errors
    /// [`Error`], also without `CAP_NET_ADMIN`.
    pub fn chains(&mut self, table: Table<'_>) -> Result<Option<Vec<String>>, Error> {
        let held = self.table(table)?;
        Ok(held.map(|it| it.chains.into_iter().map(|it| it.name).collect()))
    }

    /// A table with its chains; `None` when there is no such table.
    ///
    /// # Errors
    /// [`Error`], also without `CAP_NET_ADMIN`.
    pub fn table(&mut self, table: Table<'_>) -> Result<Option<HeldTable>, Error> {
        let what = format!("list the chains of table {table} in nf_tables");
        // Most often there is no table: to learn that, no list is made.
        let Some(found) = self.get(Message::get_table(table), &what)? else { return Ok(None) };
        let list = || Message::list_chains(table);
        let chains = self.list(
            Extent::Chains(table.family),
            list,
            &what,
            |chains: &mut Vec<HeldChain>, chain| {
                chains.extend(message::read_chain(chain, table));
            },
        )?;
        Ok(Some(HeldTable { is_awake: message::flags(&found) & DORMANT == 0, chains }))
    }

    /// Whether only the program that made a table may change it (`flags owner`).
    ///
    /// # Errors
    /// [`Error`], also without `CAP_NET_ADMIN`.
    pub fn is_owned(&mut self, table: Table<'_>) -> Result<bool, Error> {
        let what = format!("look for table {table} in nf_tables");
        let found = self.get(Message::get_table(table), &what)?;
        Ok(found.is_some_and(|it| message::flags(&it) & OWNED != 0))
    }

    /// The sets and maps of a table, but for those that are part of a rule (`{ 1, 2 }`); none where there is no such table.
    ///
    /// # Errors
    /// [`Error`], also without `CAP_NET_ADMIN`.
    pub fn sets(&mut self, table: Table<'_>) -> Result<Vec<HeldSet>, Error> {
        let what = format!("list the sets of table {table} in nf_tables");
        let sets = self.list(
            Extent::Table(table),
            || set::list_sets(table),
            &what,
            |sets: &mut Vec<HeldSet>, it| sets.extend(set::read_set(it, table)),
        );
        none_if_missing(sets)
    }

    /// The elements of a set or map; none where there is no such set.
    ///
    /// # Errors
    /// [`Error`], also without `CAP_NET_ADMIN`.
    pub fn elements(&mut self, table: Table<'_>, set: &str) -> Result<Vec<Encoded>, Error> {
        let what = format!("list the elements of set {set:?} of table {table} in nf_tables");
        let elements = self.list(
            Extent::Table(table),
            || set::list_elements(table, set),
            &what,
            |elements: &mut Vec<Encoded>, it| elements.extend(set::read_elements(it)),
        );
        none_if_missing(elements)
    }

    /// What elements of a set or map have counted; nothing where there is no such set. It is not listed again when a
    /// change interrupts that: where much changes there would be no end.
    ///
    /// # Errors
    /// [`Error`], also without `CAP_NET_ADMIN`.
    pub fn counted_elements(&mut self, table: Table<'_>, set: &str) -> Result<Counted, Error> {
        let what = format!("list the counters of set {set:?} of table {table} in nf_tables");
        let mut elements = Vec::new();
        let message = set::list_elements(table, set);
        let listed = self.socket.list(message, &what, |it| elements.extend(set::read_counted(it)));
        let listed = none_if_missing(listed)?;
        Ok(Counted { elements, is_whole: !listed.is_interrupted })
    }

    /// The element of a set or map that has the key of this one; `None` when there is none, or no such set.
    ///
    /// # Errors
    /// [`Error`], also without `CAP_NET_ADMIN`.
    pub fn element(
        &mut self,
        table: Table<'_>,
        set: &str,
        element: &Encoded,
    ) -> Result<Option<Encoded>, Error> {
        let what = format!("look for an element of set {set:?} of table {table} in nf_tables");
        let found = self.get(set::get_element(table, set, element), &what)?;
        Ok(found.and_then(|it| set::read_elements(&it).next()))
    }

    /// Removes a table with all that is in it, if there is one.
    ///
    /// # Errors
    /// [`Error`].
    pub fn remove(&mut self, table: Table<'_>) -> Result<(), Error> {
        if !self.has_table(table)? {
            return Ok(());
        }
        match self.change(table, &[Change::DeleteAll]) {
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(()),
            done => done,
        }
    }

    /// The rules of `chain` that jump to `target`.
    ///
    /// # Errors
    /// [`Error`].
    pub fn jumps(
        &mut self,
        table: Table<'_>,
        chain: &str,
        target: &str,
    ) -> Result<Vec<Jump>, Error> {
        let what = format!("list the rules of chain {chain:?} in nf_tables");
        self.list(
            Extent::Table(table),
            || Message::list_rules(table, chain),
            &what,
            |jumps: &mut Vec<Jump>, rule| jumps.extend(rule::read_jump(rule, table, chain, target)),
        )
    }

    /// The rules of those chains of a table of which `is_one` is true, by the addresses that they are for; none when there
    /// is no such table.
    ///
    /// # Errors
    /// [`Error`].
    pub fn addressed(
        &mut self,
        table: Table<'_>,
        is_one: impl Fn(&str) -> bool,
    ) -> Result<Vec<Addressed>, Error> {
        let what = format!("list the rules of table {table} in nf_tables");
        let list = || Message::list_all_rules(table);
        let rules = self.list(Extent::Table(table), list, &what, |rules: &mut Vec<_>, rule| {
            rules.extend(rule::read_addressed(rule, table, &is_one));
        });
        none_if_missing(rules)
    }

    /// The ports of each rule of `chain` that the iptables programs made of `-m multiport --dports`; `None` of a rule that
    /// is not told by such a list.
    ///
    /// # Errors
    /// [`Error`].
    pub fn ports(&mut self, table: Table<'_>, chain: &str) -> Result<Vec<Option<Vec<u16>>>, Error> {
        let what = format!("list the rules of chain {chain:?} of table {table} in nf_tables");
        let list = || Message::list_rules(table, chain);
        let ports = self.list(Extent::Table(table), list, &what, |ports: &mut Vec<_>, rule| {
            ports.extend(rule::read_ports(rule, table, chain));
        });
        none_if_missing(ports)
    }

    /// Deletes rules of `chain` by their handles and, with all its rules, `target`: all or nothing.
    ///
    /// # Errors
    /// [`Error`]: the first refusal.
    pub fn delete(
        &mut self,
        table: Table<'_>,
        (chain, handles): (&str, &[u64]),
        target: Option<&str>,
    ) -> Result<(), Error> {
        let mut changes: Vec<_> =
            handles.iter().map(|handle| Change::DeleteRule(chain, *handle)).collect();
        if let Some(target) = target {
            changes.extend([Change::Empty(target), Change::DeleteChain(target)]);
        }
        self.change(table, &changes)
    }

    /// The rules of a chain, in their order; none when there is no such chain.
    ///
    /// # Errors
    /// [`Error`].
    pub fn rules(&mut self, table: Table<'_>, chain: &str) -> Result<Vec<HeldRule>, Error> {
        let what = format!("list the rules of chain {chain:?} of table {table} in nf_tables");
        let list = || Message::list_rules(table, chain);
        let rules =
            self.list(Extent::Table(table), list, &what, |rules: &mut Vec<HeldRule>, rule| {
                rules.extend(rule::read(rule, table, chain));
            });
        none_if_missing(rules)
    }

    /// Whether `chain` has a rule like this one, whatever that has counted; no chain has none.
    ///
    /// # Errors
    /// [`Error`].
    pub fn has_iptables_rule(
        &mut self,
        table: Table<'_>,
        chain: &str,
        wanted: &IptablesRule,
    ) -> Result<bool, Error> {
        let what = format!("list the rules of chain {chain:?} of table {table} in nf_tables");
        let list = || Message::list_rules(table, chain);
        let has = self.list(Extent::Table(table), list, &what, |has: &mut bool, rule| {
            *has |= wanted.alternatives().any(|it| rule::is_like(rule, table, chain, it));
        });
        none_if_missing(has)
    }

    /// Whether `chain` has a rule like this one, whatever its comment is and what it has counted; no chain has none.
    ///
    /// # Errors
    /// [`Error`].
    pub fn has_rule(
        &mut self,
        table: Table<'_>,
        chain: &str,
        wanted: &Rule,
    ) -> Result<bool, Error> {
        let what = format!("list the rules of chain {chain:?} of table {table} in nf_tables");
        let list = || Message::list_rules(table, chain);
        let wanted = Message::of_rule(table.family, wanted).into_attributes();
        let has = self.list(Extent::Table(table), list, &what, |has: &mut bool, rule| {
            *has |= rule::is_like(rule, table, chain, &wanted);
        });
        none_if_missing(has)
    }

    /// All rules of a table by their chains, in their order, those of chains that are part of a rule too; chains without
    /// rules are not told, and nothing where there is no table.
    ///
    /// # Errors
    /// [`Error`].
    pub fn all_rules(
        &mut self,
        table: Table<'_>,
    ) -> Result<BTreeMap<String, Vec<HeldRule>>, Error> {
        let what = format!("list the rules of table {table} in nf_tables");
        let list = || Message::list_all_rules(table);
        let rules = self.list(
            Extent::Table(table),
            list,
            &what,
            |rules: &mut BTreeMap<_, Vec<_>>, rule| {
                if let Some((chain, rule)) = rule::read_any(rule, table) {
                    rules.entry(chain).or_default().push(rule);
                }
            },
        );
        none_if_missing(rules)
    }

    /// Makes all of these changes of a table, or none.
    ///
    /// # Errors
    /// [`Error`]: the first refusal, with the change that was refused.
    pub fn change(&mut self, table: Table<'_>, changes: &[Change<'_>]) -> Result<(), Error> {
        let mut batch = Batch::default();
        changes.iter().for_each(|it| batch.push(table, it));
        self.commit(&batch, &format!("change table {table} in nf_tables"))
    }

    /// The netlink port by which others are told that a change came from here, once there was one.
    ///
    /// # Errors
    /// [`Error::Socket`].
    pub fn port(&self) -> Result<u32, Error> {
        self.socket.port()
    }

    /// Makes all of these changes, or none; `what` says what is tried by them.
    ///
    /// # Errors
    /// [`Error`]: the first refusal, with the change that was refused.
    pub fn commit(&mut self, batch: &Batch, what: &str) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        self.has_deleted |= batch.deletes();
        let first = self.socket.next();
        let (bytes, last) = batch.framed(first);
        self.socket.used(last);
        self.socket.send_all(&bytes, what)?;
        // The last change is acknowledged, and refusals are always answered.
        let done = self.socket.receive(what, first..=last, |answer| match answer.code() {
            Some(0) => Ok(Some(())),
            Some(code) => {
                let refused = answer.sequence.wrapping_sub(first).checked_sub(1);
                let refused = refused.and_then(|it| batch.describe(it, Errno::from_raw(code)));
                let what = refused.map_or(what.to_owned(), |it| format!("{what}: {it}"));
                end(&what, answer, code)
            }
            None => Ok(None),
        });
        if done.is_err() {
            self.socket.drain(what);
        }
        done
    }

    /// Done with it, without a wait for the kernel to free what was deleted by it.
    pub fn leave(self) {
        if self.has_deleted {
            self.socket.leave_to_kernel();
        }
    }

    /// The attributes of one object; `None` when there is none of that name.
    fn get(&mut self, message: Message, what: &str) -> Result<Option<Vec<u8>>, Error> {
        let sequence = self.socket.next();
        self.socket.send(&message.numbered(sequence).into_bytes(), what)?;
        let found = self.socket.receive(what, sequence..=sequence, |answer| {
            let Some(code) = answer.code() else {
                return Ok(Some(Ok(answer.bytes.get(HEADERS..).unwrap_or_default().to_vec())));
            };
            Ok(Some(Err(code)))
        })?;
        match found.map_err(|code| (code, Errno::from_raw(code))) {
            Ok(attributes) => Ok(Some(attributes)),
            // Neither the table nor what is in it, or (EINVAL, EOPNOTSUPP) not even nf_tables.
            Err((_, Errno::ENOENT | Errno::EINVAL | Errno::EOPNOTSUPP)) => Ok(None),
            Err((code, _)) => Err(refused(what.into(), code)),
        }
    }
}

/// What is asked of something that is not there holds nothing.
fn none_if_missing<T: Default>(found: Result<T, Error>) -> Result<T, Error> {
    match found {
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(T::default()),
        found => found,
    }
}
