//! Noticing changes of the tables that iptables used before nf_tables.

use std::collections::BTreeMap;
use std::fs;

use netlink::{Error, xtables};

use super::table::TABLES;
use crate::iptables::Family;

/// By family and table, the number of entries. A change that replaces as many is not seen by it.
pub(super) type Entries = BTreeMap<(Family, &'static str), u32>;

/// Of those of the tables that rules of ours may be in, and that there are.
pub(super) fn entries() -> Result<Entries, Error> {
    let mut entries = Entries::new();
    for (family, file) in [(Family::V4, "ip_tables_names"), (Family::V6, "ip6_tables_names")] {
        // Without the module there is no such file.
        let names = fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
        for table in TABLES.into_iter().filter(|table| names.lines().any(|name| name == *table)) {
            entries.insert((family, table), xtables::entries(family.is_ipv4(), table)?);
        }
    }
    Ok(entries)
}
