//! A limit for some of what a link sends, by the network at the other end (`sch_htb`).

use ipnetwork::IpNetwork;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcFilterU32, TcFilterU32Option, TcHandle, TcMessage, TcOption, TcU32Key,
    TcU32Selector, TcU32SelectorFlags,
};

use super::{FIRST, TokenBucket, kind, message, options_of, payload_of};
use crate::answer::Answer;
use crate::attributes::{find, number};
use crate::{Error, Request, Socket};

pub(super) const KIND: &str = "htb";
/// The class of what is limited.
const LIMITED: TcHandle = TcHandle { major: 1, minor: 1 };
/// What waits of that.
const QUEUE: TcHandle = TcHandle { major: 2, minor: 0 };
const QUEUE_KIND: &str = "bfifo";
/// So many packets of what is not limited may wait: an IFB has no length of its own, and none would pass.
const DIRECT_QUEUE: u32 = 1000;
/// Bytes that a class may send in its turn. It is the only one.
const QUANTUM: u32 = 60_000;
/// `HTB_VER`, and the divisor that is used where a class names no quantum.
const VERSION: u32 = 3;
const RATE_TO_QUANTUM: u32 = 10;
const TCA_HTB_PARMS: u16 = 1;
const TCA_HTB_INIT: u16 = 2;
const TCA_HTB_DIRECT_QLEN: u16 = 5;
const TCA_HTB_RATE64: u16 = 6;
const TCA_HTB_CEIL64: u16 = 7;
/// Place of the rate in `tc_ratespec`, of which `tc_htb_opt` begins with two.
const RATE: usize = 8;
const RATESPEC: usize = 12;
const BUFFER: usize = 2 * RATESPEC;
/// `ETH_P_IP` and `ETH_P_IPV6`.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// Places of source and destination in the headers.
const PLACES_V4: [i32; 2] = [12, 16];
const PLACES_V6: [i32; 2] = [8, 24];

/// Whose networks those of a [`NetworkLimit`] are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherEnd {
    /// Packets come from there.
    Source,
    /// They go there.
    Destination,
}

/// A limit that depends on the network at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkLimit {
    /// What is limited.
    pub bucket: TokenBucket,
    /// Where packets have the address of the other end.
    pub other_end: OtherEnd,
    /// Networks, without host bits.
    pub networks: Vec<IpNetwork>,
    /// Whether what has its other end there is limited, or all else.
    pub is_of_networks: bool,
}

fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|it| it.to_ne_bytes()).collect()
}

fn option(kind: u16, payload: Vec<u8>) -> TcOption {
    TcOption::Other(DefaultNla::new(kind, payload))
}

impl NetworkLimit {
    fn root(&self, link: u32) -> TcMessage {
        let default = if self.is_of_networks { 0 } else { LIMITED.minor };
        let root = numbers(&[VERSION, RATE_TO_QUANTUM, default.into(), 0, 0]);
        let options =
            vec![option(TCA_HTB_INIT, root), option(TCA_HTB_DIRECT_QLEN, numbers(&[DIRECT_QUEUE]))];
        message(link, FIRST, TcHandle::ROOT, vec![kind(KIND), TcAttribute::Options(options)])
    }

    fn class(&self, link: u32) -> TcMessage {
        let bucket = self.bucket;
        let rate = u32::try_from(bucket.rate).unwrap_or(u32::MAX);
        // Rate and ceiling, and the burst of either; then quantum, level and priority.
        let class = [0, 0, rate, 0, 0, rate, bucket.buffer, bucket.buffer, QUANTUM, 0, 0];
        let mut options = vec![option(TCA_HTB_PARMS, numbers(&class))];
        if u64::from(rate) != bucket.rate {
            let large = bucket.rate.to_ne_bytes();
            options
                .extend([TCA_HTB_RATE64, TCA_HTB_CEIL64].map(|kind| option(kind, large.to_vec())));
        }
        message(link, LIMITED, FIRST, vec![kind(KIND), TcAttribute::Options(options)])
    }

    /// `struct tc_fifo_qopt`, which is in no attribute of its own.
    fn queue(&self, link: u32) -> TcMessage {
        let options = TcAttribute::Other(DefaultNla::new(2, numbers(&[self.bucket.limit])));
        message(link, QUEUE, LIMITED, vec![kind(QUEUE_KIND), options])
    }

    fn filter(&self, link: u32, network: &IpNetwork) -> TcMessage {
        let mut selector = TcU32Selector::default();
        selector.flags = TcU32SelectorFlags::Terminal;
        selector.keys = self.keys(network);
        selector.nkeys = u8::try_from(selector.keys.len()).unwrap_or_default();
        let to = if self.is_of_networks { LIMITED } else { FIRST };
        let options = [TcFilterU32Option::ClassId(to), TcFilterU32Option::Selector(selector)];
        let options = TcAttribute::Options(options.map(TcOption::U32).into());
        let mut message =
            message(link, TcHandle::UNSPEC, FIRST, vec![kind(TcFilterU32::KIND), options]);
        // A priority has filters of one protocol.
        let (priority, protocol) = if network.is_ipv4() { (1, IPV4) } else { (2, IPV6) };
        message.header.info = priority << 16 | u32::from(protocol.to_be());
        message
    }

    /// Words of the packet's header, compared in the bits of the network's prefix; one at least.
    fn keys(&self, network: &IpNetwork) -> Vec<TcU32Key> {
        let which = usize::from(self.other_end == OtherEnd::Destination);
        let (places, words) = match network {
            IpNetwork::V4(it) => (PLACES_V4, vec![(it.network().to_bits(), it.mask().to_bits())]),
            IpNetwork::V6(it) => {
                let word = |bits: u128, shift: u32| (bits >> shift & u128::from(u32::MAX)) as u32;
                let (address, mask) = (it.network().to_bits(), it.mask().to_bits());
                (PLACES_V6, [96, 64, 32, 0].map(|it| (word(address, it), word(mask, it))).into())
            }
        };
        let first = places.get(which).copied().unwrap_or_default();
        let mut keys: Vec<_> = (0..)
            .zip(words)
            .map(|(number, (value, mask))| {
                let mut key = TcU32Key::default();
                (key.off, key.val, key.mask) = (first + 4 * number, value, mask);
                key
            })
            .collect();
        let compared = keys.iter().filter(|it| it.mask != 0).count();
        keys.truncate(compared.max(1));
        keys
    }

    /// What a filter's keys are of; the reverse of [`Self::keys`].
    fn read_keys(keys: &[TcU32Key], is_ipv4: bool) -> Option<(OtherEnd, IpNetwork)> {
        let places = if is_ipv4 { PLACES_V4 } else { PLACES_V6 };
        let first = keys.first()?.off;
        let other_end = match places.iter().position(|it| *it == first)? {
            0 => OtherEnd::Source,
            _ => OtherEnd::Destination,
        };
        let prefix = keys.iter().map(|it| it.mask.count_ones()).sum::<u32>();
        let prefix = u8::try_from(prefix).ok()?;
        let address = if is_ipv4 {
            let [key] = keys else { return None };
            std::net::Ipv4Addr::from_bits(key.val).into()
        } else {
            let word = |it: usize| u128::from(keys.get(it).map_or(0, |it| it.val));
            let bits = word(0) << 96 | word(1) << 64 | word(2) << 32 | word(3);
            std::net::Ipv6Addr::from_bits(bits).into()
        };
        Some((other_end, IpNetwork::new(address, prefix).ok()?))
    }
}

impl Request {
    /// Have a link send no more than a limit lets through. Refused with EEXIST where somebody set another
    /// discipline; where one of them is refused, [`Self::delete_root`] removes the others.
    #[must_use]
    pub fn add_network_limit(link: u32, name: &str, limit: &NetworkLimit) -> Vec<Self> {
        let what = format!("limit what {name:?} sends to some networks");
        let request = |message| Self::new(what.clone(), message, NLM_F_CREATE | NLM_F_EXCL);
        let mut requests = vec![
            request(RouteNetlinkMessage::NewQueueDiscipline(limit.root(link))),
            request(RouteNetlinkMessage::NewTrafficClass(limit.class(link))),
            request(RouteNetlinkMessage::NewQueueDiscipline(limit.queue(link))),
        ];
        requests.extend(limit.networks.iter().map(|network| {
            request(RouteNetlinkMessage::NewTrafficFilter(limit.filter(link, network)))
        }));
        requests
    }
}

impl Socket {
    /// The limit of a link that [`Request::add_network_limit`] made, as far as it is one; `None` where there is
    /// none.
    ///
    /// # Errors
    /// [`Error`].
    pub fn network_limit(&mut self, link: u32, name: &str) -> Result<Option<NetworkLimit>, Error> {
        let ask = |message| Request::dump(format!("list the limits of {name:?}"), message);
        let about = |parent| message(link, TcHandle::UNSPEC, parent, Vec::new());
        let answers =
            self.dump(&ask(RouteNetlinkMessage::GetTrafficClass(about(TcHandle::UNSPEC))))?;
        let class = answers.into_iter().find_map(|answer| match answer {
            Answer::Other(RouteNetlinkMessage::NewTrafficClass(it))
                if it.header.handle == LIMITED =>
            {
                Some(it)
            }
            _ => None,
        });
        let answers =
            self.dump(&ask(RouteNetlinkMessage::GetQueueDiscipline(about(TcHandle::UNSPEC))))?;
        let queues: Vec<_> = answers
            .into_iter()
            .filter_map(|answer| match answer {
                Answer::Other(RouteNetlinkMessage::NewQueueDiscipline(it)) => Some(it),
                _ => None,
            })
            .filter(|it| it.header.index == link.cast_signed())
            .collect();
        let answers = self.dump(&ask(RouteNetlinkMessage::GetTrafficFilter(about(FIRST))))?;
        let filters = answers.into_iter().filter_map(|answer| match answer {
            Answer::Other(RouteNetlinkMessage::NewTrafficFilter(it)) => Some(it),
            _ => None,
        });
        Ok(class.and_then(|class| read(&class, &queues, filters)))
    }
}

fn read(
    class: &TcMessage,
    queues: &[TcMessage],
    filters: impl Iterator<Item = TcMessage>,
) -> Option<NetworkLimit> {
    let class = payload_of(class);
    let parameters = find(&class, TCA_HTB_PARMS)?;
    let at = |place| number(parameters.get(place..place + 4)?);
    let large = find(&class, TCA_HTB_RATE64).and_then(|it| it.try_into().ok());
    let root = queues.iter().find(|it| it.header.parent == TcHandle::ROOT)?;
    let root = payload_of(root);
    let default = number(find(&root, TCA_HTB_INIT)?.get(8..12)?)?;
    let queue = queues.iter().find(|it| it.header.parent == LIMITED)?;
    let bucket = TokenBucket {
        rate: large.map_or(at(RATE)?.into(), u64::from_ne_bytes),
        buffer: at(BUFFER)?,
        limit: number(payload_of(queue).get(..4)?)?,
    };
    let (mut networks, mut other_end) = (Vec::new(), OtherEnd::Source);
    for filter in filters {
        let is_ipv4 = filter.header.info as u16 == IPV4.to_be();
        // Besides the filters there are the tables that they are in.
        let keys = options_of(filter).find_map(|it| match it {
            TcOption::U32(TcFilterU32Option::Selector(it)) => Some(it.keys),
            _ => None,
        });
        let Some(keys) = keys else { continue };
        let (end, network) = NetworkLimit::read_keys(&keys, is_ipv4)?;
        other_end = end;
        networks.push(network);
    }
    Some(NetworkLimit { bucket, other_end, networks, is_of_networks: default == 0 })
}
