//! Having what the host receives from a container pass its IFB.
//!
//! What comes back from an IFB has the kernel neither ask the filters of traffic control again nor the chains of
//! nf_tables for the interface (`skip_classify` in `__netif_receive_skb_core`), in which podwire closes interfaces
//! and looks at sources. So it is sent there by nf_tables, behind those chains; by traffic control, as the
//! reference has it, only where the kernel cannot do that.

use std::collections::BTreeMap;

use attachment::kernel::BANDWIDTH_TABLE;
use netlink::nftables::{Change, Client, HeldRule};
use netlink::{Discipline, Link, Request, Socket};
use nix::errno::Errno;
use ruleset::nft::{Base, Chain, Family, Hook, Kind, Policy, Rule, Statement, Table};

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

fn chain<'a>(ifb: &'a str, link: &'a str) -> Chain<'a> {
    let base = Base {
        kind: Kind::Filter,
        hook: Hook::Ingress(link),
        priority: PRIORITY,
        policy: Policy::Accept,
    };
    Chain { name: ifb, base: Some(base), comment: None }
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
    let forward = Statement::Forward { link: ifb.index, name: ifb.name.clone() };
    let rule = Rule::new([], forward).commented(&owner.comment);
    let mut changes = Vec::new();
    // Of an attachment whose DEL never came. In newer kernels a chain outlives its interface.
    if client.has_chain(TABLE, chain.name)? {
        changes.extend([Change::Empty(chain.name), Change::DeleteChain(chain.name)]);
    }
    changes.extend([
        Change::Table(Some(TABLE_COMMENT)),
        Change::Chain(&chain),
        Change::Rule(chain.name, &rule),
    ]);
    client.change(TABLE, &changes)
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
    Ok(held.is_awake && held.chains.iter().any(|it| it.is_like(&chain)) && is_one_of(&rules, owner))
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
        Ok(())
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
        Ok(())
    }
}

/// Removes a chain, and the table with the last.
fn remove(client: &mut Client, chain: &str) -> Result<(), Error> {
    change(client, &[Change::Empty(chain), Change::DeleteChain(chain)])?;
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
