//! The settings below `/proc/sys/net` that plugins write.

use std::fs;

use crate::space::Space;

const OF_THE_NAMESPACE: [&str; 2] = ["ipv4/ip_forward", "ipv6/conf/all/forwarding"];

const OF_A_LINK: [&str; 10] = [
    "ipv4/conf/IF/arp_notify",
    "ipv4/conf/IF/proxy_arp",
    "ipv4/conf/IF/route_localnet",
    "ipv4/conf/IF/rp_filter",
    "ipv6/conf/IF/accept_dad",
    "ipv6/conf/IF/accept_ra",
    "ipv6/conf/IF/disable_ipv6",
    "ipv6/conf/IF/enhanced_dad",
    "ipv6/conf/IF/forwarding",
    "ipv6/conf/IF/keep_addr_on_down",
];

/// Settings that only tuning writes, with what the kernel has: told where they are otherwise.
const TUNED: [(&str, &str); 3] = [
    ("core/somaxconn", "4096"),
    ("ipv4/ip_default_ttl", "64"),
    ("ipv4/ip_local_port_range", "32768\t60999"),
];

const TUNED_OF_A_LINK: [(&str, &str); 2] =
    [("ipv4/conf/IF/arp_filter", "0"), ("ipv6/conf/IF/hop_limit", "64")];

pub(crate) fn facts(place: &str, space: &Space, links: &[String]) -> Vec<String> {
    space.enter(|| {
        let global = OF_THE_NAMESPACE.iter().filter_map(|key| {
            let value = read(key)?;
            Some(format!("{place} sysctl net {key}={value}"))
        });
        let of_links = links.iter().flat_map(|link| {
            OF_A_LINK.iter().filter_map(move |key| {
                let value = read(&key.replace("IF", link))?;
                let key = key.replace("conf/IF/", "");
                Some(format!("{place} sysctl {link} {key}={value}"))
            })
        });
        let tuned = TUNED.iter().filter_map(|(key, usual)| {
            let value = read(key).filter(|value| value != usual)?;
            Some(format!("{place} sysctl net {key}={value}"))
        });
        let tuned_of_links = links.iter().flat_map(|link| {
            TUNED_OF_A_LINK.iter().filter_map(move |(key, usual)| {
                let value = read(&key.replace("IF", link)).filter(|value| value != usual)?;
                let key = key.replace("conf/IF/", "");
                Some(format!("{place} sysctl {link} {key}={value}"))
            })
        });
        global.chain(of_links).chain(tuned).chain(tuned_of_links).collect()
    })
}

/// `None` when the kernel has no such setting: IPv6 is off for a link with a small MTU.
fn read(key: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/sys/net/{key}")).ok()?;
    Some(text.trim().to_owned())
}
