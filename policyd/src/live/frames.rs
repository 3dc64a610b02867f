//! Whether frames that iptables is not shown are kept from the ends that are ports of a bridge.

use std::collections::BTreeSet;

use netlink::nftables::Held;

use super::report::Live;
use crate::frames::TABLE;

/// What they would do.
const UNSEEN: &str = "frames of VLANs and of other protocols than IP pass unseen";

/// Compares what the kernel holds with the ports that it should hold.
pub(super) fn compare(ports: &BTreeSet<&str>, held: &Held, live: &mut Live) {
    if ports.is_empty() {
        return;
    }
    let place = format!("nf_tables: table bridge {TABLE}");
    let held = match held {
        Held::Nothing => return live.differ(&place, format!("it is missing: {UNSEEN}")),
        Held::Other => {
            return live.differ(&place, format!("it is not as policyd wrote it: {UNSEEN}"));
        }
        Held::Ports(held) => held,
    };
    for port in ports.iter().filter(|it| !held.contains(**it)) {
        live.differ(&place, format!("it lacks port {port}: {UNSEEN}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_to_be_held() {
        let compare = |ports: &[&str], held: Held| {
            let mut live = Live::new("n", Vec::new());
            super::compare(&ports.iter().copied().collect(), &held, &mut live);
            live.differences.into_iter().map(|it| it.problem).collect::<Vec<_>>()
        };
        let held = || Held::Ports(BTreeSet::from(["veth1".to_owned()]));
        assert_eq!(compare(&[], Held::Nothing), [""; 0]);
        assert_eq!(compare(&["veth1"], held()), [""; 0]);
        let unseen = "frames of VLANs and of other protocols than IP pass unseen";
        assert_eq!(
            compare(&["veth1", "veth2"], held()),
            [format!("it lacks port veth2: {unseen}")]
        );
        assert_eq!(compare(&["veth1"], Held::Nothing), [format!("it is missing: {unseen}")]);
        let other = format!("it is not as policyd wrote it: {unseen}");
        assert_eq!(compare(&["veth1"], Held::Other), [other]);
    }
}
