//! CHECK.

use cni::Call;
use netlink::{Discipline, Link, NetworkLimit, OtherEnd, Socket, TokenBucket};

use super::conf::{Conf, Limit, Subnets};
use super::{Ifb, host_end, redirect};
use crate::error::Error;
use crate::prev_result;

/// Of the kernel's scheduler (`PSCHED_TICKS2NS`), in nanoseconds.
const TICK: u128 = 64;
const SECOND: u128 = 1_000_000_000;

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
        .find(call, &mut host)?
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
            (held.map(|it| of_networks(&it)), of_networks(&wanted))
        }
        None => {
            let wanted = limit.token_bucket();
            let held = host.disciplines(index, name)?;
            if held.contains(&Discipline::TokenBucket(wanted)) {
                return Ok(());
            }
            (held.into_iter().find_map(of_all), of_bucket(wanted))
        }
    };
    Err(Error::Changed(match held {
        Some(held) => format!("what {name:?} sends has {held}, not {wanted}"),
        None => format!("what {name:?} sends is not limited"),
    }))
}

/// In words, what limits all that is sent; `None`: nothing does.
fn of_all(discipline: Discipline) -> Option<String> {
    Some(match discipline {
        Discipline::TokenBucket(bucket) => of_bucket(bucket),
        Discipline::NetworkLimit => "a limit for some networks".to_owned(),
        Discipline::OtherRoot => "another queueing discipline".to_owned(),
        Discipline::Filters => return None,
    })
}

/// In words, a limit for some networks.
fn of_networks(limit: &NetworkLimit) -> String {
    let networks: Vec<_> = limit.networks.iter().map(ToString::to_string).collect();
    let which = if limit.is_of_networks { "for what is" } else { "for all but what is" };
    let end = if limit.other_end == OtherEnd::Source { "from" } else { "to" };
    format!("{} {which} {end} {}", of_bucket(limit.bucket), networks.join(", "))
}

/// In words, a token bucket.
fn of_bucket(bucket: TokenBucket) -> String {
    let TokenBucket { rate, buffer, limit } = bucket;
    let rate = u128::from(rate) * 8;
    let burst = (rate * u128::from(buffer) * TICK).div_ceil(SECOND);
    format!("a limit of {rate} bits a second (bursts of {burst} bits; {limit} bytes may wait)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_told_in_words() {
        let bucket = TokenBucket { rate: 1_000_000, buffer: 156_250, limit: 35_000 };
        let words = "a limit of 8000000 bits a second (bursts of 80000 bits; 35000 bytes may wait)";
        assert_eq!(of_all(Discipline::TokenBucket(bucket)).as_deref(), Some(words));
        assert_eq!(of_all(Discipline::Filters), None);
        let networks = ["10.0.0.0/8", "fd00::/8"].map(|it| it.parse().unwrap());
        for (other_end, is_of_networks, which) in [
            (OtherEnd::Source, true, "for what is from"),
            (OtherEnd::Destination, false, "for all but what is to"),
        ] {
            let networks = networks.to_vec();
            let limit = NetworkLimit { bucket, other_end, networks, is_of_networks };
            assert_eq!(of_networks(&limit), format!("{words} {which} 10.0.0.0/8, fd00::/8"));
        }
    }
}
