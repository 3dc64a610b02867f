//! CHECK.

use cni::Call;
use netlink::{Discipline, Link, OtherEnd, Socket};

use super::conf::{Conf, Limit, Subnets};
use super::{Ifb, host_end, redirect};
use crate::error::Error;
use crate::prev_result;

/// Whether the container is limited as the configuration says.
pub(super) fn check(call: &Call) -> Result<(), Error> {
    let conf = Conf::parse(call)?;
    prev_result::required(call)?;
    if conf.is_empty() {
        return Ok(());
    }
    let mut host = Socket::open()?;
    let link = host_end(call, &mut host)?;
    if let Some(limit) = conf.ingress {
        check_sent(&mut host, &link, limit, (conf.subnets.as_ref(), OtherEnd::Source))?;
    }
    let Some(limit) = conf.egress else { return Ok(()) };
    let of_call = Ifb::of(call);
    let ifb = of_call
        .find(&mut host)?
        .ok_or_else(|| Error::Changed("the container's IFB is missing".into()))?;
    if !ifb.is_up {
        return Err(Error::Changed(format!("{:?} is down", ifb.name)));
    }
    check_sent(&mut host, &ifb, limit, (conf.subnets.as_ref(), OtherEnd::Destination))?;
    if !redirect::is_set_up(&mut host, &link, &ifb, &of_call.owner)? {
        return Err(Error::Changed(format!(
            "what {:?} receives is not redirected to {:?}",
            link.name, ifb.name
        )));
    }
    Ok(())
}

fn check_sent(
    host: &mut Socket,
    link: &Link,
    limit: Limit,
    (subnets, other_end): (Option<&Subnets>, OtherEnd),
) -> Result<(), Error> {
    let (index, name) = (link.index, &link.name);
    let (held, wanted) = match subnets {
        Some(subnets) => {
            let held = host.network_limit(index, name)?.map(|mut held| {
                held.networks.sort();
                held
            });
            let wanted = subnets.limit(limit, other_end);
            if held.as_ref() == Some(&wanted) {
                return Ok(());
            }
            (held.map(|it| format!("{it:?}")), format!("{wanted:?}"))
        }
        None => {
            let wanted = Discipline::TokenBucket(limit.token_bucket());
            let held = host.disciplines(index, name)?;
            if held.contains(&wanted) {
                return Ok(());
            }
            let held = held.iter().find(|it| **it != Discipline::Filters);
            (held.map(|it| format!("{it:?}")), format!("{wanted:?}"))
        }
    };
    Err(Error::Changed(match held {
        Some(held) => format!("what {name:?} sends is limited by {held}, not {wanted}"),
        None => format!("what {name:?} sends is not limited"),
    }))
}
