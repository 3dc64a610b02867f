//! `macspoofchk`: frames of a container that do not come from its hardware address are dropped, by
//! nf_tables, in the reference plugin's layout (`pkg/link/spoofcheck.go`).

use cni::Call;
use netlink::nftables::{Change, Client, HeldRule};
use nix::errno::Errno;
use ruleset::nft::{Base, Chain, Family, Hook, Kind, Match, Policy, Rule, Table, Verdict};

use crate::error::Error;
use crate::nf_tables::{attempt, deletions, missing};
use crate::veth::Veth;

const TABLE: Table<'static> = Table { family: Family::Bridge, name: "nat" };
const PREROUTING: Chain<'static> = Chain {
    name: "PREROUTING",
    base: Some(Base {
        kind: Kind::Filter,
        hook: Hook::Prerouting,
        priority: -300,
        policy: Policy::Accept,
    }),
    comment: None,
};

/// The names of an attachment's chains, and the comment of its rules.
#[derive(Debug)]
struct Names {
    interface_chain: String,
    address_chain: String,
    comment: String,
}

impl Names {
    fn of(call: &Call) -> Self {
        let attachment = format!("{}-{}", call.container_id, call.ifname);
        let interface_chain = format!("cni-br-iface-{attachment}");
        let address_chain = format!("{interface_chain}-mac");
        Self { interface_chain, address_chain, comment: format!("macspoofchk-{attachment}") }
    }

    fn chains(&self) -> [Chain<'_>; 2] {
        let names = [&self.interface_chain, &self.address_chain];
        names.map(|name| Chain { name, base: None, comment: None })
    }

    fn rule(&self, matches: impl Into<Vec<Match>>, verdict: Verdict) -> Rule {
        Rule::new(matches, verdict).commented(&self.comment)
    }

    fn is_of(&self, rule: &&HeldRule) -> bool {
        rule.comment.as_ref() == Some(&self.comment)
    }
}

/// Adds the rules for a port of the bridge, in place of any that the attachment has.
pub(super) fn set_up(call: &Call, veth: &Veth) -> Result<(), Error> {
    let names = Names::of(call);
    let [interface_chain, address_chain] = names.chains();
    let at_hook = names.rule(
        [Match::InInterface(veth.host.name.clone())],
        Verdict::Jump(names.interface_chain.clone()),
    );
    let of_interface = names.rule([], Verdict::Jump(names.address_chain.clone()));
    let good = names.rule([Match::HardwareSource(veth.container_mac.0)], Verdict::Return);
    let bad = names.rule([], Verdict::Drop);
    let mut client = Client::open()?.ok_or_else(|| missing("macspoofchk"))?;
    attempt(|| {
        let held = client.rules(TABLE, PREROUTING.name)?;
        let mut changes =
            vec![Change::Table(None), Change::Chain(&PREROUTING), Change::Chain(&interface_chain)];
        changes.extend([Change::Chain(&address_chain), Change::Empty(interface_chain.name)]);
        changes.push(Change::Empty(address_chain.name));
        changes.extend(deletions(PREROUTING.name, held.iter().filter(|rule| names.is_of(rule))));
        changes.extend([
            Change::Rule(PREROUTING.name, &at_hook),
            Change::Rule(interface_chain.name, &of_interface),
            Change::Rule(address_chain.name, &good),
            Change::Rule(address_chain.name, &bad),
        ]);
        client.change(TABLE, &changes)
    })
}

/// Removes an attachment's rules and chains, whichever suite made them.
pub(super) fn tear_down(call: &Call) -> Result<(), Error> {
    let names = Names::of(call);
    let Some(mut client) = Client::open()? else { return Ok(()) };
    attempt(|| {
        let held = client.rules(TABLE, PREROUTING.name)?;
        let mut chains = Vec::new();
        for chain in [&names.interface_chain, &names.address_chain] {
            if client.has_chain(TABLE, chain)? {
                chains.push(chain);
            }
        }
        // They lead to each other: all are emptied first.
        let own = held.iter().filter(|rule| names.is_of(rule));
        let emptied = chains.iter().map(|chain| Change::Empty(chain));
        let emptied: Vec<_> = deletions(PREROUTING.name, own).chain(emptied).collect();
        let gone: Vec<_> = chains.iter().map(|chain| Change::DeleteChain(chain)).collect();
        match client.change(TABLE, &[&*emptied, &*gone].concat()) {
            // Rules of others lead to one of them: it stays, empty.
            Err(error) if is_busy(&error) => {}
            done => return done,
        }
        client.change(TABLE, &emptied)?;
        gone.iter().try_for_each(|chain| match client.change(TABLE, std::slice::from_ref(chain)) {
            Err(error) if is_busy(&error) => Ok(()),
            done => done,
        })
    })
}

fn is_busy(error: &netlink::Error) -> bool {
    error.errno() == Some(Errno::EBUSY)
}
