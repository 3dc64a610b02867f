//! Having what the host receives from a container pass its IFB.
//!
//! What comes back from an IFB has the kernel neither ask the filters of traffic control again nor the chains of
//! nf_tables for the interface (`skip_classify` in `__netif_receive_skb_core`), in which podwire closes interfaces
//! and looks at sources. So it is sent there by nf_tables, behind those chains; by traffic control, as the
//! reference has it, only where the kernel cannot do that.

use std::collections::{BTreeMap, BTreeSet};

use attachment::kernel::BANDWIDTH_TABLE;
use netlink::nftables::{Change, Client, HeldChain, HeldRule};
use netlink::{Discipline, Link, Request, Socket};
use nix::errno::Errno;
use ruleset::nft::{Base, Chain, Family, Hook, Kind, Match, Policy, Rule, Statement, Table};

use super::Ifb;
use crate::error::Error;
use crate::kernel_tables::KernelTables;
use crate::owner::{Owner, Stale};

/// Each chain has the name of the IFB that it leads to.
const TABLE: Table<'static> = Table { family: Family::Netdev, name: BANDWIDTH_TABLE };
const TABLE_COMMENT: &str =
    "What containers send is limited on its way through IFBs, by podwire's bandwidth";
/// Behind what closes interfaces (-500) and looks at sources (-400), and ahead of flowtables, behind which
/// nothing comes.
const PRIORITY: i32 = -100;
/// Others may remove chains between a look and a write.
const ATTEMPTS: usize = 4;

fn chain<'a>(ifb: &'a str, link: &'a str) -> Chain<'a> {
    let base = Base {
        kind: Kind::Filter,
        hook: Hook::Ingress(link),
        priority: PRIORITY,
        policy: Policy::Accept,
    };
    Chain { name: ifb, base: Some(base), comment: None }
}

/// Sends all that the chain sees to the IFB: as rules were that asked for no link.
fn unconditional(ifb: &Link) -> Rule {
    Rule::new([], Statement::Forward { link: ifb.index, name: ifb.name.clone() })
}

/// The same of what comes by this link alone: in newer kernels a chain outlives its link, and is called for
/// what gets the name next.
fn of_link(link: &Link, ifb: &Link) -> Rule {
    let matches = vec![Match::InLink { link: link.index, name: link.name.clone() }];
    Rule { matches, ..unconditional(ifb) }
}

/// Redirects what comes by `link`.
pub(super) fn set_up(
    host: &mut Socket,
    link: &Link,
    ifb: &Link,
    owner: &Owner,
) -> Result<(), Error> {
    match Client::open()?.map(|mut client| by_nftables(&mut client, link, ifb, owner)) {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) if !is_missing(&error) => Err(error.into()),
        Some(Err(_)) | None => by_traffic_control(host, link, ifb),
    }
}

/// Whether the kernel lacks the family, or the expression.
fn is_missing(error: &netlink::Error) -> bool {
    error.is_unsupported() || error.errno() == Some(Errno::ENOENT)
}

fn by_nftables(
    client: &mut Client,
    link: &Link,
    ifb: &Link,
    owner: &Owner,
) -> Result<(), netlink::Error> {
    let chain = chain(&ifb.name, &link.name);
    let rule = of_link(link, ifb).commented(&owner.comment);
    let mut attempts = 0;
    loop {
        let left = left(client, &chain, link)?;
        let go = left.iter().flat_map(|it| [Change::Empty(it), Change::DeleteChain(it)]);
        let mut changes: Vec<_> = go.collect();
        changes.extend([
            Change::Table(Some(TABLE_COMMENT)),
            Change::Chain(&chain),
            Change::Rule(chain.name, &rule),
        ]);
        attempts += 1;
        match client.change(TABLE, &changes) {
            // A late DEL or GC was there first.
            Err(error)
                if error.errno() == Some(Errno::ENOENT)
                    && !left.is_empty()
                    && attempts < ATTEMPTS => {}
            done => return done,
        }
    }
}

/// The chains of attachments whose DEL never came: of this one, and of those that had a link of this name before.
fn left(
    client: &mut Client,
    chain: &Chain<'_>,
    link: &Link,
) -> Result<BTreeSet<String>, netlink::Error> {
    let mut left = client.receiving(TABLE, &link.name)?;
    if client.has_chain(TABLE, chain.name)? {
        left.insert(chain.name.to_owned());
    }
    Ok(left)
}

/// Behind the filters of others, of eBPF for one, whose place is used where there is one.
fn by_traffic_control(host: &mut Socket, link: &Link, ifb: &Link) -> Result<(), Error> {
    let (index, name) = (link.index, &link.name);
    let redirect = Request::redirect_received(index, name, ifb.index);
    if host.disciplines(index, name)?.contains(&Discipline::Filters) {
        return Ok(host.execute(&[redirect])?);
    }
    host.execute(&[Request::add_filters(index, name)])?;
    host.execute(&[redirect]).map_err(|error| {
        // The refusal tells more than what becomes of this.
        let _ = host.execute(&[Request::delete_filters(index, name)]);
        error.into()
    })
}

/// Whether what comes by `link` is redirected.
pub(super) fn is_set_up(
    host: &mut Socket,
    link: &Link,
    ifb: &Link,
    owner: &Owner,
) -> Result<bool, Error> {
    if host.redirects(link.index, &link.name)?.contains(&ifb.index) {
        return Ok(true);
    }
    let Some(mut client) = Client::open()? else { return Ok(false) };
    let Some(held) = client.table(TABLE)? else { return Ok(false) };
    let chain = chain(&ifb.name, &link.name);
    let rules = client.rules(TABLE, chain.name)?;
    let is_chain = |it: &HeldChain| it.is_like(&chain) && it.is_at(Hook::Ingress(&link.name));
    if !held.is_awake || !held.chains.iter().any(is_chain) || !is_one_of(&rules, owner) {
        return Ok(false);
    }
    Ok(client.has_rule(TABLE, chain.name, &of_link(link, ifb))?
        || client.has_rule(TABLE, chain.name, &unconditional(ifb))?)
}

fn is_one_of(rules: &[HeldRule], owner: &Owner) -> bool {
    matches!(rules, [rule] if owner.has(rule.comment.as_deref()))
}

/// What remains of redirections by nf_tables; what traffic control has goes with the link.
#[derive(Debug, Default)]
pub(super) struct Remains(KernelTables);

impl Remains {
    /// Removes an attachment's.
    pub(super) fn remove_of(&mut self, ifb: &Ifb) -> Result<(), Error> {
        let Some(client) = self.0.client()? else { return Ok(()) };
        for name in [&ifb.name, &ifb.own_name] {
            if is_one_of(&client.rules(TABLE, name)?, &ifb.owner) {
                remove(client, name)?;
            }
        }
        remove_empty(client)
    }

    /// Removes those of attachments that are not valid.
    pub(super) fn collect_garbage(&mut self, stale: &Stale) -> Result<(), Error> {
        let Some(client) = self.0.client()? else { return Ok(()) };
        let held: BTreeMap<_, _> = client.all_rules(TABLE)?;
        for (chain, rules) in held {
            if rules.iter().any(|it| stale.has(it.comment.as_deref())) {
                remove(client, &chain)?;
            }
        }
        remove_empty(client)
    }
}

fn remove(client: &mut Client, chain: &str) -> Result<(), Error> {
    change(client, &[Change::Empty(chain), Change::DeleteChain(chain)])
}

/// Removes the table that has no chains: in old kernels the last may have gone with its link.
fn remove_empty(client: &mut Client) -> Result<(), Error> {
    // It is looked at first, as a refusal has the kernel wait for RCU (`__nf_tables_abort`).
    if client.chains(TABLE)?.is_some_and(|it| it.is_empty()) {
        change(client, &[Change::DeleteTable])?;
    }
    Ok(())
}

fn change(client: &mut Client, changes: &[Change<'_>]) -> Result<(), Error> {
    match client.change(TABLE, changes) {
        // Somebody else was there first; or has made a chain meanwhile.
        Err(error) if matches!(error.errno(), Some(Errno::ENOENT | Errno::EBUSY)) => Ok(()),
        done => Ok(done?),
    }
}
