//! Taking the node's network away again. Forwarding stays on: others may need it by now.

use netlink::{Request, Socket};
use runner::Runner;

use super::constants::PROTOCOL;
use super::{Error, accept};
use crate::dataplane::Programs;
use crate::iptables::Family;

/// Removes the routes and the rules that accept, whatever becomes of the others.
///
/// # Errors
/// What could not be removed.
pub fn remove<R: Runner>(programs: &mut Programs<R>) -> Result<(), Error> {
    // The routes last: that there are some tells the next one that there is something to remove.
    let own = accept::own_chain();
    let rules = Family::ALL.map(|family| own.remove(programs, family));
    let routes = remove_routes();
    for removed in rules {
        removed?;
    }
    routes
}

/// The same, where routes show that there is something: asking the kernel for them starts no
/// program. Whether there was.
///
/// # Errors
/// What could not be removed.
pub fn remove_left_over<R: Runner>(programs: &mut Programs<R>) -> Result<bool, Error> {
    let mut socket = Socket::open()?;
    for family in Family::ALL {
        if !socket.kept_routes(family.is_ipv4(), PROTOCOL)?.is_empty() {
            return remove(programs).map(|()| true);
        }
    }
    Ok(false)
}

fn remove_routes() -> Result<(), Error> {
    let mut socket = Socket::open()?;
    for family in Family::ALL {
        let held = socket.kept_routes(family.is_ipv4(), PROTOCOL)?;
        let requests = held.iter().map(|it| Request::delete_kept_route(it, PROTOCOL).or_gone());
        socket.execute(&requests.collect::<Vec<_>>())?;
    }
    Ok(())
}
