//! How fast a link sends, and where what it receives goes instead: queueing disciplines and filters
//! (`include/uapi/linux/pkt_sched.h` and `pkt_cls.h`).

mod by_network;

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, Nla};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionMirror, TcActionMirrorOption, TcActionOption,
    TcActionType, TcAttribute, TcFilterU32, TcFilterU32Option, TcHandle, TcMessage, TcMirror,
    TcMirrorActionType, TcOption, TcU32Key, TcU32Selector, TcU32SelectorFlags,
};

use crate::answer::Answer;
use crate::attributes::{find, number};
use crate::{Error, Request, Socket};
pub use by_network::{NetworkLimit, OtherEnd};

const TOKEN_BUCKET: &str = "tbf";
const CLASSIFIER_AND_ACTIONS: &str = "clsact";
/// The root of a link, as it is set by us.
const FIRST: TcHandle = TcHandle { major: 1, minor: 0 };
/// `ffff:`, which both `clsact` and its forerunner `ingress` have.
const INGRESS: TcHandle = TcHandle { major: TcHandle::INGRESS.major, minor: 0 };
/// Where the filters are that see what a link receives.
const RECEIVED: TcHandle =
    TcHandle { major: TcHandle::INGRESS.major, minor: TcHandle::MIN_INGRESS };
/// What the kernel gives those that ask for none: filters of others are most often asked first.
const LAST_PRIORITY: u32 = 0xC000;
/// `ETH_P_ALL`.
const ALL_PROTOCOLS: u16 = 3;
/// `struct tc_tbf_qopt`: two `tc_ratespec`, then limit, buffer and MTU.
const TBF_PARAMETERS: u16 = 1;
const TBF_RATE: u16 = 4;
const RATESPEC: usize = 12;
const TBF_SIZE: usize = 2 * RATESPEC + 12;

/// What a link sends at most (`sch_tbf`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    /// Bytes a second.
    pub rate: u64,
    /// How long sending a burst takes at that rate, in ticks of 64 ns (`PSCHED_TICKS2NS`).
    pub buffer: u32,
    /// Bytes that may wait; what is more is dropped.
    pub limit: u32,
}

/// What is set on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discipline {
    /// A token bucket, for what it sends.
    TokenBucket(TokenBucket),
    /// Filters of what it receives: `clsact`, or `ingress` as it was before Linux 4.5.
    Filters,
    /// A limit of some networks ([`Socket::network_limit`]).
    NetworkLimit,
    /// Another one that somebody set as its root.
    OtherRoot,
}

impl TokenBucket {
    fn options(self) -> Vec<TcOption> {
        // A rate that does not fit has the greatest there, and an attribute of its own.
        let rate = u32::try_from(self.rate).unwrap_or(u32::MAX);
        let mut parameters = vec![0; TBF_SIZE];
        let numbers =
            [(RATESPEC - 4, rate), (TBF_SIZE - 12, self.limit), (TBF_SIZE - 8, self.buffer)];
        for (place, number) in numbers {
            if let Some(room) = parameters.get_mut(place..place + 4) {
                room.copy_from_slice(&number.to_ne_bytes());
            }
        }
        let mut options = vec![TcOption::Other(DefaultNla::new(TBF_PARAMETERS, parameters))];
        if u64::from(rate) != self.rate {
            let rate = self.rate.to_ne_bytes().to_vec();
            options.push(TcOption::Other(DefaultNla::new(TBF_RATE, rate)));
        }
        options
    }

    fn read(options: &[u8]) -> Option<Self> {
        let parameters = find(options, TBF_PARAMETERS)?;
        let at = |place| number(parameters.get(place..place + 4)?);
        let large = find(options, TBF_RATE).and_then(|it| it.try_into().ok());
        Some(Self {
            rate: large.map_or(at(RATESPEC - 4)?.into(), u64::from_ne_bytes),
            buffer: at(TBF_SIZE - 8)?,
            limit: at(TBF_SIZE - 12)?,
        })
    }
}

fn message(
    link: u32,
    handle: TcHandle,
    parent: TcHandle,
    attributes: Vec<TcAttribute>,
) -> TcMessage {
    // Links' indexes are positive.
    let mut message = TcMessage::with_index(link.cast_signed());
    message.header.handle = handle;
    message.header.parent = parent;
    message.attributes = attributes;
    message
}

fn kind(name: &str) -> TcAttribute {
    TcAttribute::Kind(name.to_owned())
}

impl Request {
    /// Has a link send no more than a token bucket lets through. Refused with EEXIST where somebody set
    /// another discipline.
    #[must_use]
    pub fn add_token_bucket(link: u32, name: &str, bucket: &TokenBucket) -> Self {
        let attributes = vec![kind(TOKEN_BUCKET), TcAttribute::Options(bucket.options())];
        let message = message(link, FIRST, TcHandle::ROOT, attributes);
        let what = format!("limit what {name:?} sends");
        Self::new(what, RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Has a link send as it did before there was a limit of ours.
    #[must_use]
    pub fn delete_limit(link: u32, name: &str) -> Self {
        let message = message(link, FIRST, TcHandle::ROOT, Vec::new());
        let what = format!("no longer limit what {name:?} sends");
        Self::new(what, RouteNetlinkMessage::DelQueueDiscipline(message), 0)
    }

    /// Makes place for filters of what a link receives and sends. Refused with EEXIST where there is
    /// such a place.
    #[must_use]
    pub fn add_filters(link: u32, name: &str) -> Self {
        let attributes = vec![kind(CLASSIFIER_AND_ACTIONS)];
        let message = message(link, INGRESS, TcHandle::CLSACT, attributes);
        let what = format!("make place for filters of {name:?}");
        Self::new(what, RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Removes that place, with all filters.
    #[must_use]
    pub fn delete_filters(link: u32, name: &str) -> Self {
        let attributes = vec![kind(CLASSIFIER_AND_ACTIONS)];
        let message = message(link, INGRESS, TcHandle::CLSACT, attributes);
        let what = format!("remove the place for filters of {name:?}");
        Self::new(what, RouteNetlinkMessage::DelQueueDiscipline(message), 0)
    }

    /// Has all that a link receives sent out by another one, after the filters of others; there has to
    /// be a place for filters.
    #[must_use]
    pub fn redirect_received(link: u32, name: &str, to: u32) -> Self {
        let mut mirror = TcMirror::default();
        mirror.eaction = TcMirrorActionType::EgressRedir;
        mirror.ifindex = to;
        mirror.generic.action = TcActionType::Stolen;
        let mut action = TcAction::default();
        action.attributes = vec![
            TcActionAttribute::Kind(TcActionMirror::KIND.to_owned()),
            TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(
                mirror,
            ))]),
        ];
        // A key that compares no bit of the packet.
        let mut all = TcU32Selector::default();
        all.flags = TcU32SelectorFlags::Terminal;
        all.nkeys = 1;
        all.keys = vec![TcU32Key::default()];
        let options = [TcFilterU32Option::Selector(all), TcFilterU32Option::Action(vec![action])];
        let attributes =
            vec![kind(TcFilterU32::KIND), TcAttribute::Options(options.map(TcOption::U32).into())];
        let mut message = message(link, TcHandle::UNSPEC, RECEIVED, attributes);
        message.header.info = LAST_PRIORITY << 16 | u32::from(ALL_PROTOCOLS.to_be());
        let what = format!("redirect what {name:?} receives");
        Self::new(what, RouteNetlinkMessage::NewTrafficFilter(message), NLM_F_CREATE | NLM_F_EXCL)
    }
}

impl Socket {
    /// What is set on a link.
    ///
    /// # Errors
    /// [`Error`].
    pub fn disciplines(&mut self, link: u32, name: &str) -> Result<Vec<Discipline>, Error> {
        let message = message(link, TcHandle::UNSPEC, TcHandle::UNSPEC, Vec::new());
        let what = format!("list the queueing disciplines of {name:?}");
        let request = Request::dump(what, RouteNetlinkMessage::GetQueueDiscipline(message));
        let of_link = self.dump(&request)?.into_iter().filter_map(|answer| match answer {
            Answer::Other(RouteNetlinkMessage::NewQueueDiscipline(it))
                if it.header.index == link.cast_signed() =>
            {
                Some(it)
            }
            _ => None,
        });
        Ok(of_link.filter_map(read).collect())
    }

    /// The links by which what this one receives is sent out instead.
    ///
    /// # Errors
    /// [`Error`].
    pub fn redirects(&mut self, link: u32, name: &str) -> Result<Vec<u32>, Error> {
        Ok(self.received(link, name)?.into_iter().flat_map(redirections).collect())
    }

    /// Has nothing that a link receives sent out by another one any more, where [`Request::redirect_received`] did
    /// that. Filters of others stay.
    ///
    /// # Errors
    /// [`Error`].
    pub fn end_redirects(&mut self, link: u32, name: &str, to: u32) -> Result<(), Error> {
        let filters = self.received(link, name)?.into_iter();
        let ending = filters.filter(|it| redirections(it.clone()).contains(&to)).map(|filter| {
            let attributes = vec![kind(TcFilterU32::KIND)];
            let mut message = message(link, filter.header.handle, RECEIVED, attributes);
            message.header.info = filter.header.info;
            let what = format!("no longer redirect what {name:?} receives");
            Request::new(what, RouteNetlinkMessage::DelTrafficFilter(message), 0).or_gone()
        });
        self.execute(&ending.collect::<Vec<_>>())
    }

    /// The filters of what a link receives.
    fn received(&mut self, link: u32, name: &str) -> Result<Vec<TcMessage>, Error> {
        let message = message(link, TcHandle::UNSPEC, RECEIVED, Vec::new());
        let what = format!("list the filters of what {name:?} receives");
        let request = Request::dump(what, RouteNetlinkMessage::GetTrafficFilter(message));
        let filters = self.dump(&request)?.into_iter().filter_map(|answer| match answer {
            Answer::Other(RouteNetlinkMessage::NewTrafficFilter(it)) => Some(it),
            _ => None,
        });
        Ok(filters.collect())
    }
}

/// One that somebody set: what a link has by itself has no handle.
fn read(message: TcMessage) -> Option<Discipline> {
    if message.header.handle.major == 0 {
        return None;
    }
    let is_root = message.header.parent == TcHandle::ROOT;
    let kind = message.attributes.iter().find_map(|it| match it {
        TcAttribute::Kind(kind) => Some(kind.as_str()),
        _ => None,
    });
    match kind {
        Some(TOKEN_BUCKET) if is_root => {
            TokenBucket::read(&payload_of(&message)).map(Discipline::TokenBucket)
        }
        Some(by_network::KIND) if is_root => Some(Discipline::NetworkLimit),
        _ if message.header.parent == TcHandle::CLSACT => Some(Discipline::Filters),
        _ => is_root.then_some(Discipline::OtherRoot),
    }
}

/// The options, of a kind that the library knows.
fn options_of(message: TcMessage) -> impl Iterator<Item = TcOption> {
    let options = message.attributes.into_iter().filter_map(|it| match it {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    options.flatten()
}

/// The bytes of the options: of a kind that the library does not know it has them in one piece.
fn payload_of(message: &TcMessage) -> Vec<u8> {
    let options = message.attributes.iter().filter_map(|it| match it {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    let payload = |option: &TcOption| {
        let mut payload = vec![0; option.value_len()];
        option.emit_value(&mut payload);
        payload
    };
    options.flatten().flat_map(payload).collect()
}

fn redirections(filter: TcMessage) -> Vec<u32> {
    let actions = options_of(filter).filter_map(|it| match it {
        TcOption::U32(TcFilterU32Option::Action(actions)) => Some(actions),
        _ => None,
    });
    let attributes = actions.flatten().flat_map(|it| it.attributes);
    let options = attributes.filter_map(|it| match it {
        TcActionAttribute::Options(options) => Some(options),
        _ => None,
    });
    let mirrors = options.flatten().filter_map(|it| match it {
        TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror)) => Some(mirror),
        _ => None,
    });
    let redirects = mirrors.filter(|it| it.eaction == TcMirrorActionType::EgressRedir);
    redirects.map(|it| it.ifindex).collect()
}
