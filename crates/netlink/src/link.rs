//! Links: interfaces of every kind.

mod changes;
mod read;
mod request;

use std::path::Path;

use netlink_packet_route::link::State;
use nix::errno::Errno;

use crate::answer::Answer;
use crate::{Error, HardwareAddress, Request, Socket};

pub use changes::{LinkChange, LinkChanges};
pub(crate) use read::read;
pub use request::{BridgeFiltering, BridgeSpec, PortOptions, VethSpec};

/// The parameters of module br_netfilter, which are there while it is loaded.
const BRIDGE_NETFILTER: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// Whether bridges of the calling process's namespace can show their frames to the filters of packets: whether
/// br_netfilter is loaded.
#[must_use]
pub fn has_bridge_netfilter() -> bool {
    Path::new(BRIDGE_NETFILTER).exists()
}

/// What is known of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index in its namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Hardware address, if it has one of six bytes.
    pub mac: Option<HardwareAddress>,
    /// `bridge`, `veth`...; empty for what has no kind (hardware, loopback).
    pub kind: String,
    /// Bytes.
    pub mtu: u32,
    /// Length of its transmit queue, packets.
    pub tx_queue_length: u32,
    /// Whether it is set up.
    pub is_up: bool,
    /// Whether promiscuous mode was asked for.
    pub is_promiscuous: bool,
    /// Whether all multicast packets were asked for.
    pub is_all_multicast: bool,
    /// Whether it is a loopback.
    pub is_loopback: bool,
    /// RFC 2863 state.
    pub oper_state: State,
    /// Index of its bridge (or other controller).
    pub controller: Option<u32>,
    /// A veth's peer: its index, in its own namespace.
    pub peer: Option<u32>,
    /// What somebody called it besides.
    pub alias: Option<String>,
    /// A bridge's: whose packets it passes to iptables; `None` for other links, and where the kernel
    /// was built without bridge netfilter.
    pub filtering: Option<BridgeFiltering>,
    /// Of a bridge's port: whether the bridge takes nothing from it to others of which the same is true.
    pub is_isolated: bool,
    /// Whether it configures itself by IPv6 router advertisements; `None` without IPv6.
    pub accepts_advertisements: Option<bool>,
}

impl Link {
    /// The hardware address as results show it; empty when there is none.
    #[must_use]
    pub fn mac_text(&self) -> String {
        self.mac.map(|mac| mac.to_string()).unwrap_or_default()
    }
}

impl Socket {
    /// The link of that name; `None` when there is none.
    ///
    /// # Errors
    /// [`Error`].
    pub fn link_by_name(&mut self, name: &str) -> Result<Option<Link>, Error> {
        self.find_link(&Request::get_link(format!("look up link {name:?}"), 0, Some(name)))
    }

    /// The link of that index; `None` when there is none.
    ///
    /// # Errors
    /// [`Error`].
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>, Error> {
        self.find_link(&Request::get_link(format!("look up link {index}"), index, None))
    }

    fn find_link(&mut self, request: &Request) -> Result<Option<Link>, Error> {
        match self.execute_and_get(std::slice::from_ref(request)) {
            Ok(messages) => Ok(links(messages).next()),
            Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates a link by `request` and looks it up, in one exchange.
    ///
    /// # Errors
    /// [`Error`]; the link does not exist then.
    pub fn create_link(&mut self, request: Request, name: &str) -> Result<Link, Error> {
        let look_up = Request::get_link(format!("look up link {name:?}"), 0, Some(name));
        let what = look_up.what.clone();
        let messages = self.execute_and_get(&[request, look_up])?;
        let problem = "the new link is not there".into();
        links(messages).next().ok_or(Error::Answer { what, problem })
    }

    /// Carries out `requests` and looks the link up, in one exchange.
    ///
    /// Asked for a link, the kernel first finishes what follows from its carrier (operational
    /// state, queueing); left alone, and before Linux 6.8, it does so later and drops what is sent until
    /// then (`linkwatch_sync_dev`, which `rtnl_getlink` calls since then).
    ///
    /// # Errors
    /// [`Error`], also when the link does not exist.
    pub fn execute_and_look_up(
        &mut self,
        mut requests: Vec<Request>,
        index: u32,
    ) -> Result<Link, Error> {
        let look_up = Request::get_link(format!("look up link {index}"), index, None);
        let what = look_up.what.clone();
        requests.push(look_up);
        let messages = self.execute_and_get(&requests)?;
        let problem = "the link is not there".into();
        links(messages).next().ok_or(Error::Answer { what, problem })
    }

    /// All links.
    ///
    /// # Errors
    /// [`Error`].
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        Ok(links(self.dump(&Request::list_links())?).collect())
    }

    /// Has a bridge of the calling thread's namespace pass what goes from port to port to iptables,
    /// or no longer. Nothing is changed where it is so already.
    ///
    /// # Errors
    /// [`Error::NoBridgeNetfilter`] where nothing would come of it; [`Error`].
    pub fn set_bridge_filtering(
        &mut self,
        bridge: &Link,
        filtering: BridgeFiltering,
    ) -> Result<(), Error> {
        // The bridge takes the option also while the module that would act on it is not loaded.
        if !has_bridge_netfilter() {
            return Err(Error::NoBridgeNetfilter { bridge: bridge.name.clone() });
        }
        if bridge.filtering == Some(filtering) {
            return Ok(());
        }
        self.execute(&[Request::set_bridge_filtering(bridge.index, &bridge.name, filtering)])
    }

    /// Both links by index, in one exchange.
    ///
    /// # Errors
    /// [`Error`], also when one of them does not exist.
    pub fn link_pair(&mut self, first: u32, second: u32) -> Result<(Link, Link), Error> {
        let request = |index| Request::get_link(format!("look up link {index}"), index, None);
        let messages = self.execute_and_get(&[request(first), request(second)])?;
        let mut links = links(messages);
        match (links.next(), links.next()) {
            (Some(first), Some(second)) => Ok((first, second)),
            _ => Err(Error::Answer {
                what: format!("look up links {first} and {second}"),
                problem: "one is missing".into(),
            }),
        }
    }
}

fn links(answers: Vec<Answer>) -> impl Iterator<Item = Link> {
    answers.into_iter().filter_map(|answer| match answer {
        Answer::Link(link) => Some(link),
        _ => None,
    })
}
