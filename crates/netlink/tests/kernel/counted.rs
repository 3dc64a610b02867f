//! What elements of sets have counted.

use std::collections::BTreeMap;
use std::net::UdpSocket;

use ruleset::nft::{Family, Table};

use crate::space::{nf_tables, nft, run};

const TABLE: Table<'_> = Table { family: Family::Ip, name: "t" };

#[test]
fn elements_tell_what_they_were_found_for() {
    let mut client = nf_tables();
    run("ip", &["link", "set", "lo", "up"], "");
    nft("table ip t {
           map m {
             type ipv4_addr . inet_service : verdict; counter
             elements = { 127.0.0.1 . 5 : accept, 127.0.0.1 . 6 : accept, 127.0.0.1 . 7 counter packets 9 bytes 9 : accept }
           }
           set several { type ipv4_addr; counter quota 1 mbytes; elements = { 127.0.0.1 } }
           set none { type ipv4_addr; elements = { 10.0.0.1 } }
           chain c { type filter hook output priority 0; ip daddr @several ip daddr . udp dport vmap @m; }
         }");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    // Who is there answers with no ICMP error.
    let _receivers = [5, 7].map(|it| UdpSocket::bind(("127.0.0.1", it)).unwrap());
    for port in [5, 7, 5] {
        socket.send_to(b"x", ("127.0.0.1", port)).unwrap();
    }
    let mut counted = |set| {
        let counted = client.counted_elements(TABLE, set).unwrap();
        assert!(counted.is_whole);
        counted
            .elements
            .into_iter()
            .map(|(it, packets)| (it.key, packets))
            .collect::<BTreeMap<_, _>>()
    };
    let key = |port| vec![127, 0, 0, 1, 0, port, 0, 0];
    assert_eq!(counted("m"), [(key(5), 2), (key(7), 10)].into());
    assert_eq!(counted("several"), [(vec![127, 0, 0, 1], 3)].into());
    assert_eq!(counted("none"), BTreeMap::new());
    assert_eq!(counted("nowhere"), BTreeMap::new());
    // They are the same elements as without counters.
    let all = client.elements(TABLE, "m").unwrap();
    assert_eq!(all.len(), 3);
    let counted = client.counted_elements(TABLE, "m").unwrap();
    assert!(counted.elements.iter().all(|(it, _)| all.contains(it)), "{counted:?}");
}
