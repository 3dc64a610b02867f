//! The rules of chains.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnetwork::IpNetwork;
use ruleset::iptables::{Packets, Side};
use ruleset::nft::{Field, Match, Rule, Statement, Verdict};

use super::content::{Level, Map};
use super::kind::{Hidden, Kind, Pick};
use super::layout::{
    AFFINITY, CHAINS, CLUSTER_IPS, ENDPOINTS, FILTER_OUTPUT, FORWARD, GUARD_LOCALHOST, HAIRPIN,
    LOCAL_POOLS, OUTPUT, POOLS, POSTROUTING, PREROUTING, REMEMBER_FORWARDED, REMEMBER_OWN, STICKY,
    STICKY_ENDPOINTS, destination,
};
use crate::model::Protocol;

/// What rules depend on besides services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The bit of a packet's mark that says, from one chain to another, that its sender is to be hidden.
    pub masquerade_mark: u32,
    /// Whether whoever connects to a service's address in the cluster is hidden.
    pub masquerades_all: bool,
    /// What comes from the cluster's pods.
    pub local: Local,
    /// The ranges that services' addresses are from: what goes to one that no service has, and that nobody else translates, is
    /// dropped.
    pub service_ranges: Vec<IpNetwork>,
    /// Whether packets that belong to no connection are kept from passing through: they would be seen as they are, not
    /// as the connection is that they were part of (kubernetes/kubernetes#74839).
    pub drops_invalid: bool,
    /// How the endpoint of a new connection is chosen.
    pub scheduler: Scheduler,
    /// Whether nobody else is to reach the node's 127.0.0.0/8, or be taken for it: the kernel sees to that only while
    /// `route_localnet` is off.
    pub guards_localhost: bool,
}

/// How the endpoint of a new connection is chosen among those of its pool. Where a service remembers clients, of those that it
/// does not know yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheduler {
    /// As chance has it.
    Random,
    /// By the client's address: on all nodes that know of the same endpoints it is the same one, for as long as there are
    /// the same (IPVS: `sh`).
    SourceHash,
}

/// How packets of the cluster's pods are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local {
    /// They are not.
    Unknown,
    /// By their addresses.
    Ranges(Vec<IpNetwork>),
    /// By the interface that they come through.
    Interface(String),
    /// The same, by the beginning of its name.
    Interfaces(String),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            masquerade_mark: 0x4000,
            masquerades_all: false,
            local: Local::Unknown,
            service_ranges: Vec::new(),
            drops_invalid: true,
            scheduler: Scheduler::Random,
            guards_localhost: false,
        }
    }
}

/// Chains that lead on.
const LOOK_UP: &str = "look-up";
const LOOK_UP_AGAIN: &str = "look-up-again";
const ALLOWED_CHAIN: &str = "allowed";
const NEAR_CHAIN: &str = "divided-cluster";
const MASQUERADE: &str = "masquerading";
const FORGET: &str = "forget";

/// The rules of one family's chains.
#[derive(Debug)]
pub struct Rules<'a> {
    /// What they depend on.
    pub settings: &'a Settings,
    /// The family.
    pub is_ipv4: bool,
}

impl Rules<'_> {
    /// The chains that there always are. Those that only remember clients are there if somebody is to be remembered: each
    /// packet of the node passes them.
    #[must_use]
    pub fn fixed(&self, remembers: bool) -> BTreeMap<String, Vec<Rule>> {
        let look_up = || Rule::new([], jump(LOOK_UP));
        let mut chains = vec![
            (PREROUTING, vec![look_up()]),
            (OUTPUT, vec![look_up()]),
            (LOOK_UP, self.look_up()),
            (LOOK_UP_AGAIN, self.look_up_again()),
            ("rejecting", vec![Rule::new([], Statement::Reject)]),
            (ALLOWED_CHAIN, self.by(Map::Allowed)),
            ("divided", self.divided()),
            (NEAR_CHAIN, self.by(Map::Near)),
            (MASQUERADE, self.masquerade()),
            (POSTROUTING, self.postrouting()),
        ];
        chains.extend(self.filters());
        if self.settings.guards_localhost && self.is_ipv4 {
            chains.push((GUARD_LOCALHOST, guard_localhost()));
        }
        let chains = chains.into_iter().map(|(name, rules)| (name.to_owned(), rules));
        let remembering = self.remembering().into_iter().filter(|_| remembers);
        chains.chain(remembering).collect()
    }

    /// Those of them that are there only if somebody is to be remembered. Who was sent to what is no endpoint, as the kernel
    /// remembered him from before it went, is forgotten, and sends his first packet once more.
    #[must_use]
    pub fn remembering(&self) -> [(String, Vec<Rule>); 3] {
        let first = || {
            let by_pool = Statement::Map(vec![Field::Priority], STICKY.to_owned());
            vec![Rule::new([Match::New, Match::Translated], by_pool)]
        };
        let forget = vec![Rule::new([], self.forgotten()), Rule::new([], Verdict::Drop)];
        [(REMEMBER_FORWARDED, first()), (REMEMBER_OWN, first()), (FORGET, forget)]
            .map(|(name, rules)| (name.to_owned(), rules))
    }

    /// The client is remembered with its endpoint for so long.
    fn remembered(&self, seconds: u32) -> Statement {
        let [fields, data] = self.client_and_endpoint();
        Statement::Remember { fields, data, map: AFFINITY.to_owned(), seconds }
    }

    /// It is no more.
    fn forgotten(&self) -> Statement {
        let [fields, data] = self.client_and_endpoint();
        Statement::Forget { fields, data, map: AFFINITY.to_owned() }
    }

    fn client_and_endpoint(&self) -> [Vec<Field>; 2] {
        let [from, to] =
            [Side::Source, Side::Destination].map(|it| Field::address(it, self.is_ipv4));
        [vec![from, Field::Priority], vec![to, Field::DestinationPort]]
    }

    /// A kind's chain, if it has one that is not always there. `sources` are those who may connect
    /// ([`Kind::Allow`]).
    #[must_use]
    pub fn of_kind(&self, kind: Kind, sources: &[IpNetwork]) -> Option<(String, Vec<Rule>)> {
        let rules = match kind {
            Kind::Reject | Kind::Drop | Kind::Divided => return None,
            Kind::Allow(_) => allow(sources),
            Kind::Pick(pick) => match pick.hidden {
                Hidden::Nobody => self.pick(pick),
                Hidden::Outside => self.outside(pick),
                Hidden::Everybody => {
                    vec![self.mark([]), Rule::new([], goto(&pick.plain().chain()))]
                }
            },
        };
        kind.chain().map(|name| (name, rules))
    }

    /// The chain that remembers clients for so long.
    #[must_use]
    pub fn remember(&self, seconds: u32) -> (String, Vec<Rule>) {
        let to = Field::address(Side::Destination, self.is_ipv4);
        let endpoint = vec![Field::Priority, to, Field::DestinationPort];
        let is_gone = Match::NotIn(endpoint, STICKY_ENDPOINTS.to_owned());
        let rules =
            vec![Rule::new([is_gone], goto(FORGET)), Rule::new([], self.remembered(seconds))];
        (format!("{REMEMBER}{seconds}"), rules)
    }

    /// Leads on by what a map has for the packet's destination.
    fn lead(&self, map: Map) -> [Rule; 2] {
        let fields = destination(self.is_ipv4);
        let chains = map.level().map_or(CHAINS, Level::name).to_owned();
        [
            Rule::new([], Statement::SetPriority { fields, map: map.name().to_owned() }),
            Rule::new([], Statement::Map(vec![Field::Priority], chains)),
        ]
    }

    fn by(&self, map: Map) -> Vec<Rule> {
        let otherwise = Rule::new([], Verdict::Drop);
        self.lead(map).into_iter().chain([otherwise]).collect()
    }

    fn look_up(&self) -> Vec<Rule> {
        let to = Field::address(Side::Destination, self.is_ipv4);
        let is_service = Match::In(vec![to], CLUSTER_IPS.to_owned());
        let again = Rule::new([is_service], goto(LOOK_UP_AGAIN));
        self.lead(Map::Services).into_iter().chain([again]).collect()
    }

    /// What is dropped once addresses were translated, by us or by others; chains without a rule are left out.
    fn filters(&self) -> impl Iterator<Item = (&'static str, Vec<Rule>)> {
        let invalid = Rule::new([Match::Connection(Packets::Invalid)], Verdict::Drop);
        let invalid = Some(invalid).filter(|_| self.settings.drops_invalid);
        let forward = invalid.into_iter().chain(self.unused()).collect();
        let chains = [(FORWARD, forward), (FILTER_OUTPUT, self.unused().collect())];
        chains.into_iter().filter(|(_, rules): &(_, Vec<_>)| !rules.is_empty())
    }

    /// Connections to an address that services may have, and that still is there after all translation: neither a service of ours
    /// has it nor one of another proxy. Those that the node itself has are none of these: proxies may be bound to them.
    fn unused(&self) -> impl Iterator<Item = Rule> {
        let ranges = self.settings.service_ranges.iter().filter(|it| it.is_ipv4() == self.is_ipv4);
        ranges.map(|it| {
            let to = Match::Address(Side::Destination, *it);
            Rule::new([Match::New, to, Match::NotToLocal], Verdict::Drop)
        })
    }

    /// A port that the service does not have. It is looked up once more: before Linux 6.17 a look-up may find neither
    /// the old element nor the new one while an element is exchanged, and who was let pass then would never reach the service, as
    /// the kernel asks once for each connection (`nft_set_do_lookup`, "restart set lookup on base_seq change").
    fn look_up_again(&self) -> Vec<Rule> {
        self.lead(Map::Services).into_iter().chain([Rule::new([], goto("rejecting"))]).collect()
    }

    /// From the cluster's pods.
    fn pods(&self) -> Vec<Match> {
        match &self.settings.local {
            Local::Unknown => Vec::new(),
            Local::Ranges(ranges) => {
                let ranges = ranges.iter().filter(|it| it.is_ipv4() == self.is_ipv4);
                ranges.map(|it| Match::Address(Side::Source, *it)).collect()
            }
            Local::Interface(name) => vec![Match::InInterface(name.clone())],
            Local::Interfaces(prefix) => vec![Match::InInterfaces(prefix.clone())],
        }
    }

    fn mark(&self, matches: impl Into<Vec<Match>>) -> Rule {
        Rule::new(matches, Statement::SetMark(self.settings.masquerade_mark))
    }

    fn divided(&self) -> Vec<Rule> {
        let pods = self.pods().into_iter().map(|it| Rule::new([it], goto(NEAR_CHAIN)));
        let own = [self.mark([Match::FromLocal]), Rule::new([Match::FromLocal], goto(NEAR_CHAIN))];
        pods.chain(own).chain(self.by(Map::Far)).collect()
    }

    fn outside(&self, pick: Pick) -> Vec<Rule> {
        let on = || goto(&pick.plain().chain());
        let inside = self.pods().into_iter().map(|it| Rule::new([it], on()));
        inside.chain([self.mark([]), Rule::new([], on())]).collect()
    }

    fn pick(&self, pick: Pick) -> Vec<Rule> {
        let pools = if pick.is_local { LOCAL_POOLS } else { POOLS };
        let (fields, map) = (destination(self.is_ipv4), pools.to_owned());
        let pool = Rule::new([], Statement::SetPriority { fields, map });
        let client = Field::address(Side::Source, self.is_ipv4);
        let before = self.redirects(&[client, Field::Priority], AFFINITY);
        let before = before.into_iter().filter(|_| pick.is_sticky);
        let chosen = |place| self.redirects(&[Field::Priority, place], ENDPOINTS);
        let (is_ipv4, below) = (self.is_ipv4, pick.count);
        let place = match self.settings.scheduler {
            Scheduler::SourceHash if below > 1 => Field::SourceHash { is_ipv4, below },
            Scheduler::Random | Scheduler::SourceHash => Field::Random { below },
        };
        // The places may be fewer by now than when the chain was chosen; the first one is there.
        let first = chosen(Field::Random { below: 1 });
        [pool].into_iter().chain(before).chain(chosen(place)).chain(first).collect()
    }

    /// To what a map has for these, of whatever protocol: nft asks that it be named.
    fn redirects(&self, fields: &[Field], map: &str) -> Vec<Rule> {
        let redirect = |protocol: Protocol| {
            let (fields, map) = (fields.to_vec(), map.to_owned());
            let to = Statement::Redirect { is_ipv4: self.is_ipv4, fields, map };
            Rule::new([Match::Protocol(protocol.number())], to)
        };
        Protocol::ALL.map(redirect).into()
    }

    fn postrouting(&self) -> Vec<Rule> {
        let marked = Match::Mark(self.settings.masquerade_mark);
        let [from, to] =
            [Side::Source, Side::Destination].map(|it| Field::address(it, self.is_ipv4));
        let hairpin = Match::In(vec![from, to], HAIRPIN.to_owned());
        vec![
            Rule::new([marked], goto(MASQUERADE)),
            Rule::new([Match::Translated, hairpin], MASQUERADED),
        ]
    }

    fn masquerade(&self) -> Vec<Rule> {
        let clear = Statement::ClearMark(self.settings.masquerade_mark);
        vec![Rule::new([], clear), Rule::new([], MASQUERADED)]
    }
}

/// Ports are drawn, so that connections which begin at once do not ask for the same.
const MASQUERADED: Statement = Statement::Masquerade { random_fully: true, to_ports: None };

/// What the name of the chain that remembers clients begins with; seconds follow.
pub(super) const REMEMBER: &str = "remember-";

/// What the kernel does itself without `route_localnet` (`ip_route_input_slow`; CVE-2020-8558).
fn guard_localhost() -> Vec<Rule> {
    let localhost = IpNetwork::new(Ipv4Addr::new(127, 0, 0, 0).into(), 8).ok();
    let from_elsewhere = || Match::NotInInterface("lo".to_owned());
    let drop = |side| {
        localhost.map(|it| Rule::new([from_elsewhere(), Match::Address(side, it)], Verdict::Drop))
    };
    [Side::Destination, Side::Source].into_iter().filter_map(drop).collect()
}

fn allow(sources: &[IpNetwork]) -> Vec<Rule> {
    let from = |it: &IpNetwork| Rule::new([Match::Address(Side::Source, *it)], goto(ALLOWED_CHAIN));
    sources.iter().map(from).chain([Rule::new([], Verdict::Drop)]).collect()
}

fn goto(chain: &str) -> Verdict {
    Verdict::Goto(chain.to_owned())
}

fn jump(chain: &str) -> Verdict {
    Verdict::Jump(chain.to_owned())
}
