//! Whether the kernel of this node holds what an answer says: all that a connection to the place can pass is compared, rules
//! by the hashes that they carry and maps by their elements, and the connection is followed through what is there. Pure but for
//! what reads a [`Kernel`], which changes nothing.

mod kernel;
mod report;

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use ruleset::nft::{Rule, Table};

pub use kernel::Kernel;
pub use report::{Difference, Live};

use crate::dataplane::{State, hash};
use crate::explain::{Asker, Error, Part, Query, World, askers};
use crate::nftables::{Content, Held, Key, Kind, Level, Map, Rules, table, untagged};
use crate::plan::{At, Frontend, PoolId, Scope, Way};
use crate::sorted;
use report::{entry, outcome};

/// Compares what the kernel holds with what the objects say.
///
/// # Errors
/// [`Error`], when nobody can tell who connects.
pub fn compare(world: &World, query: &Query, kernel: &Kernel) -> Result<Live, Error> {
    let at = query.to;
    let table = table(at.address.is_ipv4());
    let mut live = Live::new(world.node());
    let part = world.part(&at);
    let askers = askers(world, &part, query)?;
    match kernel.found.state {
        State::Absent => {
            let found = "nothing: it has not written yet, or all was removed";
            live.differ(&format!("table {table}"), "what proxyd makes", found);
            return Ok(live);
        }
        State::Other => {
            let found = "something else: it sleeps, or its sets or hooks are others";
            live.differ(&format!("table {table}"), "what proxyd makes", found);
            return Ok(live);
        }
        State::Ours => {}
    }
    let numbers = numbers(&part, &at, kernel);
    let slots = kernel.found.slots();
    let slots = |number: u32| slots.get(&number).cloned().unwrap_or_default();
    let expected = part.numbered(world.settings(), &at, &numbers, slots);
    let chains = chains(world, &at, &expected);
    let held = held(&expected, &chains, &at, kernel);
    for Asker { words, client } in &askers {
        let [wanted, found] = [&expected, &held].map(|it| world.follow(it, &at, client));
        if wanted != found {
            let place = format!("connections from {words}");
            live.differ(&place, outcome(&wanted), outcome(&found));
        }
    }
    compare_entries(&expected, &held, table, &mut live);
    compare_leads(&expected, table, kernel, &mut live);
    compare_chains(&chains, table, kernel, &mut live);
    let remembered = kernel.remembered.iter();
    live.notes.extend(remembered.map(|it| format!("the kernel remembers that it was led to {it}")));
    if !live.holds() {
        live.notes.push("this takes proxyd to run with the options given here, and to have written what the objects say: what it is just writing differs, too".to_owned());
    }
    Ok(live)
}

/// The numbers of pools: those that the kernel has for the place, and others that nobody has.
fn numbers(part: &Part<'_>, at: &At, kernel: &Kernel) -> sorted::Map<PoolId, u32> {
    let taken = kernel.found.entries.keys().filter_map(|key| match key {
        Key::Slot(pool, _) | Key::Sticky(pool) | Key::StickyEndpoint(pool, ..) => Some(*pool),
        _ => None,
    });
    let mut next = taken.max().map_or(0, |it| it + 1);
    let is_divided = |it: &Frontend| matches!(it.way, Way::Divided { .. });
    let is_divided = part.plan.frontends.get(at).is_some_and(is_divided);
    let mut number = |id: &PoolId| {
        let map = match id.scope {
            Scope::Local if is_divided => Map::LocalPools,
            _ => Map::Pools,
        };
        kernel.number(map, at).and_then(untagged).unwrap_or_else(|| {
            next += 1;
            next - 1
        })
    };
    part.plan.pools.keys().map(|it| (*it, number(it))).collect()
}

/// The chains that a connection to the place may pass, with their rules.
fn chains(world: &World, at: &At, expected: &Content) -> BTreeMap<String, Vec<Rule>> {
    let rules = Rules { settings: world.settings(), is_ipv4: at.address.is_ipv4() };
    let seconds: BTreeSet<u32> = expected.values().filter_map(sticky).collect();
    let mut chains = rules.fixed(!seconds.is_empty());
    chains.extend(seconds.into_iter().map(|it| rules.remember(it)));
    for (_, kind) in leads(expected) {
        let kinds = [kind.leads_to(), Some(kind)].into_iter().flatten();
        chains.extend(kinds.filter_map(|it| rules.of_kind(it, sources(expected, it))));
    }
    chains
}

const fn sticky(held: &Held) -> Option<u32> {
    match held {
        Held::Seconds(seconds) => Some(*seconds),
        _ => None,
    }
}

/// The kinds that a place leads to.
fn leads(content: &Content) -> BTreeSet<(Level, Kind)> {
    let lead = |(key, held): (&Key, &Held)| match (key, held) {
        (Key::Place(map, _), Held::Number(number)) => {
            Some((map.level()?, Kind::of_number(*number)?))
        }
        _ => None,
    };
    content.iter().filter_map(lead).collect()
}

/// Who may connect, of a kind that asks.
fn sources(content: &Content, kind: Kind) -> &[IpNetwork] {
    let Kind::Allow(pool) = kind else { return &[] };
    match content.get(&Key::Allow(pool)) {
        Some(Held::Sources(sources)) => sources,
        _ => &[],
    }
}

/// What the kernel holds of what is expected, and of the place.
fn held(
    expected: &Content,
    chains: &BTreeMap<String, Vec<Rule>>,
    at: &At,
    kernel: &Kernel,
) -> Content {
    let pools = expected.keys().filter_map(|key| match key {
        Key::Slot(pool, _) | Key::Sticky(pool) | Key::StickyEndpoint(pool, ..) => Some(*pool),
        _ => None,
    });
    let own = [Map::Pools, Map::LocalPools].into_iter().filter_map(|it| kernel.number(it, at));
    let pools: BTreeSet<u32> = pools.chain(own.filter_map(untagged)).collect();
    let is_asked = |key: &Key| match key {
        Key::Slot(pool, _) | Key::Sticky(pool) | Key::StickyEndpoint(pool, ..) => {
            pools.contains(pool)
        }
        Key::ClusterIp(address) => *address == at.address,
        Key::Place(_, it) => it == at,
        key => expected.contains_key(key),
    };
    let entries = kernel.found.entries.iter().filter(|(key, _)| is_asked(key));
    let mut held: Content = entries.map(|(key, held)| (*key, held.clone())).collect();
    // Who may connect is in rules, which are known by their hashes.
    for (key, sources) in expected {
        if let Key::Allow(pool) = key
            && let Some(chain) = Kind::Allow(*pool).chain()
            && chains.get(&chain).is_some_and(|it| kernel.has(&chain, it))
        {
            held.insert(*key, sources.clone());
        }
    }
    held
}

fn compare_entries(expected: &Content, held: &Content, table: Table<'_>, live: &mut Live) {
    let keys: BTreeSet<&Key> = expected.keys().chain(held.keys()).collect();
    for key in keys {
        // A chain is compared as such.
        let Some(set) = key.set() else { continue };
        live.elements += 1;
        let (wanted, found) = (expected.get(key), held.get(key));
        if wanted != found {
            let [(place, wanted), (_, found)] = [wanted, found].map(|it| entry(key, it));
            live.differ(&format!("{set} of {table}: {place}"), wanted, found);
        }
    }
}

fn compare_leads(expected: &Content, table: Table<'_>, kernel: &Kernel, live: &mut Live) {
    for (level, kind) in leads(expected) {
        live.elements += 1;
        if !kernel.found.led.contains(&(level, kind)) {
            let place = format!("{} of {table}: {}", level.name(), report::kind(kind.number()));
            live.differ(&place, kind.verdict().to_string(), "no such element, or another verdict");
        }
    }
}

fn compare_chains(
    chains: &BTreeMap<String, Vec<Rule>>,
    table: Table<'_>,
    kernel: &Kernel,
    live: &mut Live,
) {
    for (name, rules) in chains {
        live.chains += 1;
        if kernel.has(name, rules) {
            continue;
        }
        let place = format!("chain {name} of {table}");
        let wanted = rules.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let found = kernel
            .found
            .chains
            .get(name)
            .map_or_else(|| "no such chain".to_owned(), |found| problem(rules, found));
        live.differ(&place, wanted, found);
    }
}

/// What is wrong with a chain, of whose rules these hashes are held.
fn problem(wanted: &[Rule], found: &[String]) -> String {
    let mut others: Vec<_> = found.iter().collect();
    let mut missing = Vec::new();
    for rule in wanted {
        let hash = hash(rule);
        match others.iter().position(|it| **it == hash) {
            Some(place) => _ = others.remove(place),
            None => missing.push(rule.to_string()),
        }
    }
    let mut parts = Vec::new();
    if !missing.is_empty() {
        parts.push(format!("it lacks {}", missing.join("; ")));
    }
    if !others.is_empty() {
        parts.push(format!("{} rules that should not be", others.len()));
    }
    if parts.is_empty() { "these in another order".to_owned() } else { parts.join(", and has ") }
}
