//! The loopback plugin's work.

use std::os::fd::AsFd;

use crate::environment::Environment;
use crate::message::{ACK, Messages};
use crate::netlink::Socket;
use crate::output::{self, Interface};
use crate::system::{self, Failure};

/// Index of the loopback in every namespace.
const INDEX: u32 = 1;

/// ADD.
pub(crate) fn add(environment: &Environment) -> Result<(), Failure> {
    let netns = system::open_netns(environment.netns)?;
    system::enter(netns.as_fd())?;
    let socket = Socket::open()?;
    socket.filter_dumps()?;
    let mut messages = Messages::new();
    messages.set_up(INDEX, ACK);
    socket.exchange(&messages, |_| {})?;
    let mut messages = Messages::new();
    messages.list_addresses(INDEX);
    socket.exchange(&messages, |_| {})?;
    let lo = Interface { name: "lo", mac: [0; 6], sandbox: environment.netns };
    output::print(environment, &[lo], None)
}

/// DEL.
pub(crate) fn del(environment: &Environment) -> Result<(), Failure> {
    let netns = system::open_netns(environment.netns)?;
    system::enter(netns.as_fd())?;
    let mut messages = Messages::new();
    messages.set_down(INDEX, ACK);
    Socket::open()?.exchange(&messages, |_| {})
}
