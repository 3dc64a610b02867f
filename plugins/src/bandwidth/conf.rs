//! The bandwidth plugin's configuration.

use std::collections::BTreeSet;

use cni::decode::Fields;
use cni::{Call, NetConf};
use ipnetwork::IpNetwork;
use netlink::{NetworkLimit, OtherEnd, TokenBucket};

use crate::conf;
use crate::error::Error;

/// Where limits are set: in the configuration itself, or in `runtimeConfig.bandwidth`.
const KEYS: [&str; 4] = ["ingressRate", "ingressBurst", "egressRate", "egressBurst"];
/// Bits of what the kernel counts in 32 bits.
const LONGEST_BURST: u64 = u32::MAX as u64 * 8;
/// Microseconds that a packet may wait.
const LATENCY: u64 = 25_000;
/// Ticks of the kernel's scheduler, of 64 ns, in 8 microseconds.
const TICKS_OF_EIGHT: u64 = 125;
const MICROSECONDS: u64 = 1_000_000;

/// What a container may be sent, and may send.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Conf {
    /// To the container.
    pub(crate) ingress: Option<Limit>,
    /// From it.
    pub(crate) egress: Option<Limit>,
    /// For which networks at the other end that holds; `None` for all.
    pub(crate) subnets: Option<Subnets>,
}

/// Networks that are limited, or are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subnets {
    networks: Vec<IpNetwork>,
    are_limited: bool,
}

/// A limit of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit {
    /// Bits a second; at least a byte.
    rate: u64,
    /// Bits that may be sent at once; at least a byte.
    burst: u64,
}

impl Conf {
    /// Reads the call's configuration.
    pub(crate) fn parse(call: &Call) -> Result<Self, Error> {
        conf::strictly(call, read)
    }

    /// Whether nothing is limited.
    pub(crate) const fn is_empty(&self) -> bool {
        self.ingress.is_none() && self.egress.is_none()
    }
}

impl Limit {
    /// The kernel's parameters, as the reference has them: what waits may wait 25 ms. They are counted in 32 bits, and of
    /// what is longer the reference's hold the lower ones (on x86-64): the bursts by which runtimes mean "any", of
    /// nearly 4 GiB, would otherwise come to other queues than the reference's.
    pub(crate) fn token_bucket(self) -> TokenBucket {
        let (rate, burst) = (self.rate / 8, self.burst / 8);
        // In floating point the reference cuts off the same.
        let of = |a: u64, b: u64| u128::from(a) * u128::from(b);
        let burst_lasts = u64::from(low(of(burst, MICROSECONDS) / u128::from(rate.max(1))));
        let may_wait = low(of(rate, LATENCY) / u128::from(MICROSECONDS));
        TokenBucket {
            rate,
            buffer: low(of(burst_lasts, TICKS_OF_EIGHT) / 8),
            limit: may_wait.wrapping_add(low(burst.into())),
        }
    }
}

/// The lower 32 bits.
const fn low(number: u128) -> u32 {
    let [a, b, c, d, ..] = number.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

impl Subnets {
    /// A limit that holds for them, or for all others; packets have the address of the other end there.
    pub(crate) fn limit(&self, limit: Limit, other_end: OtherEnd) -> NetworkLimit {
        NetworkLimit {
            bucket: limit.token_bucket(),
            other_end,
            networks: self.networks.clone(),
            is_of_networks: self.are_limited,
        }
    }
}

/// Reads every key, telling problems to `fields`. Where the configuration itself has one of them, what the
/// runtime says counts for nothing (reference behaviour).
pub(crate) fn read(fields: &Fields<'_>) -> Conf {
    let _ = NetConf::dns(fields);
    let has_own = KEYS.map(|key| fields.has(key)).contains(&true);
    let own = read_limits(fields);
    let of_runtime = fields.object("runtimeConfig").and_then(|it| it.object("bandwidth"));
    match of_runtime.filter(|_| !has_own).map(|it| read_limits(&it)) {
        // The list's networks are limited, or not, at what rate the pod has.
        Some(told) => Conf { subnets: told.subnets.or(own.subnets), ..told },
        None => own,
    }
}

fn read_limits(fields: &Fields<'_>) -> Conf {
    Conf {
        ingress: read_limit(fields, "ingressRate", "ingressBurst"),
        egress: read_limit(fields, "egressRate", "egressBurst"),
        subnets: read_subnets(fields),
    }
}

/// `shapedSubnets` or `unshapedSubnets`, as the reference's releases 1.5 had them.
fn read_subnets(fields: &Fields<'_>) -> Option<Subnets> {
    let read = |key, are_limited| {
        let networks = fields.strings(key)?.into_iter().filter_map(|text| {
            let network = text.parse().ok().and_then(without_host_bits);
            if network.is_none() {
                fields.invalid(key, format!("{text:?} is no network (such as 10.0.0.0/8)"));
            }
            network
        });
        // Two filters for one network would be one too many.
        let networks: BTreeSet<_> = networks.collect();
        let networks = Vec::from_iter(networks);
        (!networks.is_empty()).then_some(Subnets { networks, are_limited })
    };
    let (limited, others) = (read("shapedSubnets", true), read("unshapedSubnets", false));
    if limited.is_some() && others.is_some() {
        fields.invalid("unshapedSubnets", "cannot be set together with shapedSubnets");
    }
    limited.or(others)
}

fn without_host_bits(network: IpNetwork) -> Option<IpNetwork> {
    IpNetwork::new(network.network(), network.prefix()).ok()
}

/// Bits, and bits a second; nothing, and 0, are no limit.
fn read_limit(
    fields: &Fields<'_>,
    rate_key: &'static str,
    burst_key: &'static str,
) -> Option<Limit> {
    let (rate, burst) = (read_bits(fields, rate_key), read_bits(fields, burst_key));
    match (rate, burst) {
        (0, 0) => return None,
        (0, _) => fields.invalid(rate_key, format!("missing, but {burst_key} is set")),
        (_, 0) => fields.invalid(burst_key, format!("missing, but {rate_key} is set")),
        (..8, _) => fields.invalid(rate_key, format!("{rate} bits a second are less than a byte")),
        (_, ..8) => fields.invalid(burst_key, format!("{burst} bits are less than a byte")),
        (_, LONGEST_BURST..) => {
            fields.invalid(burst_key, format!("{burst} bits are more than 4 GB"));
        }
        _ => return Some(Limit { rate, burst }),
    }
    None
}

fn read_bits(fields: &Fields<'_>, key: &'static str) -> u64 {
    let number = fields.integer(key).unwrap_or_default();
    u64::try_from(number).unwrap_or_else(|_| {
        fields.invalid(key, format!("{number} is negative"));
        0
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cni::decode::Problems;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn parsed(text: &Value) -> (Conf, Vec<String>) {
        let problems = Problems::default();
        let conf = read(&Fields::root(text.as_object().unwrap(), &problems));
        (conf, problems.into_vec().iter().map(ToString::to_string).collect())
    }

    const fn limit(rate: u64, burst: u64) -> Option<Limit> {
        Some(Limit { rate, burst })
    }

    #[test]
    fn nothing_and_zero_limit_nothing() {
        for text in [
            json!({}),
            json!({"ingressRate": 0, "ingressBurst": 0, "egressRate": null}),
            json!({"runtimeConfig": {}}),
            json!({"runtimeConfig": {"bandwidth": {}}}),
        ] {
            let (conf, problems) = parsed(&text);
            assert!(conf.is_empty() && problems.is_empty(), "{text}: {problems:?}");
        }
    }

    #[test]
    fn what_the_configuration_says_counts_before_what_the_runtime_says() {
        let of_runtime = json!({"bandwidth": {"ingressRate": 800, "ingressBurst": 80}});
        let (conf, _) = parsed(&json!({"runtimeConfig": of_runtime}));
        assert_eq!(conf, Conf { ingress: limit(800, 80), ..Conf::default() });
        let own = json!({"egressRate": 1600, "egressBurst": 160, "runtimeConfig": of_runtime});
        assert_eq!(parsed(&own).0, Conf { egress: limit(1600, 160), ..Conf::default() });
        let own = json!({"ingressRate": 0, "runtimeConfig": of_runtime});
        assert_eq!(parsed(&own).0, Conf::default());
    }

    #[test]
    fn half_a_limit_and_what_the_kernel_cannot_keep_are_told() {
        for (text, expected) in [
            (json!({"ingressRate": 800}), "ingressBurst: missing, but ingressRate is set"),
            (json!({"egressBurst": 800}), "egressRate: missing, but egressBurst is set"),
            (json!({"egressRate": 7, "egressBurst": 8}), "egressRate: 7 bits a second are less"),
            (json!({"egressRate": 8, "egressBurst": 7}), "egressBurst: 7 bits are less"),
            (
                json!({"ingressRate": 8, "ingressBurst": 34_359_738_360_u64}),
                "ingressBurst: 34359738360 bits are more",
            ),
            (json!({"ingressRate": -8, "ingressBurst": 8}), "ingressRate: -8 is negative"),
            (
                json!({"runtimeConfig": {"bandwidth": {"ingressRate": 1}}}),
                "runtimeConfig.bandwidth.ingressBurst: missing",
            ),
        ] {
            let (conf, problems) = parsed(&text);
            assert!(problems[0].starts_with(expected), "{problems:?}");
            assert!(conf.is_empty());
        }
        let longest = json!({"ingressRate": 8, "ingressBurst": 34_359_738_359_u64});
        assert_eq!(parsed(&longest).1, [""; 0]);
    }

    #[test]
    fn the_kernel_is_told_what_the_reference_tells_it() {
        let bucket = Limit { rate: 8_000_000, burst: 80_000 }.token_bucket();
        // A megabyte a second, of which 10,000 bytes take 10 ms.
        assert_eq!(bucket, TokenBucket { rate: 1_000_000, buffer: 156_250, limit: 35_000 });
    }

    #[test]
    fn subnets_are_of_the_list_or_of_the_pod() {
        let told = |text: &Value| {
            let (conf, problems) = parsed(text);
            let subnets = conf.subnets.map(|it| {
                (it.networks.iter().map(ToString::to_string).collect::<Vec<_>>(), it.are_limited)
            });
            (subnets, problems)
        };
        let rates = json!({"ingressRate": 800, "ingressBurst": 80});
        let mut of_pod = json!({"unshapedSubnets": ["10.0.0.9/8", "fd00::/8", "10.0.0.0/8"],
            "runtimeConfig": {"bandwidth": rates}});
        let networks = ["10.0.0.0/8", "fd00::/8"].map(str::to_owned).to_vec();
        assert_eq!(told(&of_pod), (Some((networks, false)), vec![]));
        of_pod["runtimeConfig"]["bandwidth"]["shapedSubnets"] = json!(["192.0.2.1"]);
        let networks = vec!["192.0.2.1/32".to_owned()];
        assert_eq!(told(&of_pod), (Some((networks, true)), vec![]));
        assert_eq!(told(&json!({"shapedSubnets": []})), (None, vec![]));
        let (_, problems) =
            told(&json!({"shapedSubnets": ["10.0.0.0/8"], "unshapedSubnets": ["::/0"]}));
        assert_eq!(problems, ["unshapedSubnets: cannot be set together with shapedSubnets"]);
        let (_, problems) = told(&json!({"shapedSubnets": ["ten"]}));
        assert!(problems[0].starts_with("shapedSubnets: \"ten\" is no network"), "{problems:?}");
    }

    /// The bursts of containerd, and of CRI-O, for pods that have a rate alone.
    #[test]
    fn the_bursts_of_runtimes_are_what_the_reference_makes_of_them() {
        let of = |rate, burst| Limit { rate, burst }.token_bucket();
        let bucket = TokenBucket { rate: 1_250_000, buffer: 2_415_919_079, limit: 536_902_161 };
        assert_eq!(of(10_000_000, u32::MAX.into()), bucket);
        let bucket = TokenBucket { rate: 1_250_000, buffer: 2_147_483_619, limit: 31_248 };
        assert_eq!(of(10_000_000, LONGEST_BURST - 1), bucket);
    }

    proptest! {
        /// As the reference's lines have it (`ifb_creator.go`), where conversions cut to 64 bits and then to 32.
        #[test]
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "the reference's conversions are what is compared"
        )]
        fn what_is_longer_than_32_bits_is_cut_as_by_the_reference(
            rate in 8..1_000_000_000_000_u64,
            burst in 8..LONGEST_BURST,
        ) {
            let bucket = Limit { rate, burst }.token_bucket();
            let (rate, burst) = (rate / 8, (burst / 8) as u32);
            let cut = |it: f64| it as i64 as u32;
            let lasts = cut(f64::from(burst) * 1e6 / rate as f64);
            prop_assert_eq!(bucket.buffer, cut(f64::from(lasts) * 15.625));
            let waits = cut(rate as f64 * (1e6 * (25.0 / 1e3)) / 1e6);
            prop_assert_eq!(bucket.limit, waits.wrapping_add(burst));
            prop_assert_eq!(bucket.rate, rate);
        }
    }
}
