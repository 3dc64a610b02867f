use serde_json::json;

use super::*;
use crate::source::{Change, Event as SourceEvent};
use crate::tests::scene;

const TCP: u8 = 6;

fn index(policies: usize) -> Index {
    let spec =
        json!({"podSelector": {"matchLabels": {"pod": "a"}}, "policyTypes": ["Ingress", "Egress"]});
    let policies =
        (0..policies).map(|number| scene::policy(&format!("x/p{number:02}"), spec.clone()));
    let world = scene::with(policies);
    let mut index = Index::new("node-1");
    index.apply(SourceEvent::Namespaces(Change::Listed(world.namespaces)));
    index.apply(SourceEvent::Pods(Change::Listed(world.pods)));
    index.apply(SourceEvent::Policies(Change::Listed(world.policies)));
    index.take_changes();
    index
}

fn chain(index: &Index, label: &str, direction: Direction) -> String {
    let (key, _) = index.endpoints().find(|(_, it)| it.label == label).unwrap();
    endpoint_chain_name(key, direction)
}

fn logged(
    prefix: &str,
    protocol: u8,
    [source, destination]: [[u8; 4]; 2],
    header: &[u8],
) -> Packet {
    let mut payload = vec![0; 20];
    (payload[0], payload[9]) = (0x45, protocol);
    payload[12..16].copy_from_slice(&source);
    payload[16..20].copy_from_slice(&destination);
    payload.extend(header);
    Packet { prefix: prefix.to_owned(), payload, ..Packet::default() }
}

#[test]
fn a_denied_packet_is_told_with_both_ends_and_the_policies() {
    let index = index(2);
    let ends = [[10, 0, 3, 2], [10, 0, 1, 1]];
    let to = chain(&index, "x/a", Direction::Ingress);
    let packet = logged(&to, TCP, ends, &[0x30, 0x39, 0, 80]);
    let told = Denial {
        pod: "x/a".to_owned(),
        direction: Direction::Ingress,
        peer: ends[0].into(),
        peer_pod: Some("z/b".to_owned()),
        protocol: "TCP".to_owned(),
        port: Some(80),
        icmp_type: None,
        policies: "p00, p01".to_owned(),
    };
    assert_eq!(Denial::of(&packet, Direction::Ingress, &index), Some(told));
    let from = chain(&index, "x/a", Direction::Egress);
    let packet = logged(&from, 1, [[10, 0, 1, 1], [192, 0, 2, 9]], &[8, 0, 0, 0, 1, 2]);
    let told = Denial {
        pod: "x/a".to_owned(),
        direction: Direction::Egress,
        peer: [192, 0, 2, 9].into(),
        peer_pod: None,
        protocol: "ICMP".to_owned(),
        port: None,
        icmp_type: Some(8),
        policies: "p00, p01".to_owned(),
    };
    assert_eq!(Denial::of(&packet, Direction::Egress, &index), Some(told));
}

#[test]
fn a_line_has_a_length_and_a_pod_that_is_gone_an_address() {
    let index = index(13);
    let to = chain(&index, "x/a", Direction::Ingress);
    let ends = [[10, 0, 3, 2], [10, 0, 1, 1]];
    let told = |prefix: &str| {
        Denial::of(&logged(prefix, 47, ends, &[]), Direction::Ingress, &index).unwrap()
    };
    let policies = "p00, p01, p02, p03, p04, p05, p06, p07, p08, p09 and 3 more";
    assert_eq!(told(&to).policies, policies);
    assert_eq!(told(&to).protocol, "47");
    let gone = told("PODWIRE-TO-gone");
    assert_eq!((gone.pod.as_str(), gone.policies.as_str()), ("10.0.1.1", ""));
}

#[test]
fn logs_of_others_take_no_room() {
    let index = index(1);
    let mut denied = Denied::new(None);
    let now = Instant::now();
    let theirs = logged("PODWIRE-TOO", TCP, [[10, 0, 3, 2], [10, 0, 1, 1]], &[]);
    denied.tell(vec![Event::Heard(theirs); 1000], &index, now);
    assert_eq!(denied.bucket.take(now), Some(0));
    let ours = chain(&index, "x/a", Direction::Ingress);
    let ours = logged(&ours, TCP, [[10, 0, 3, 2], [10, 0, 1, 1]], &[]);
    denied.tell(vec![Event::Heard(ours); 1000], &index, now);
    // All but the burst, of which one was taken above.
    assert_eq!(denied.bucket.take(now + INTERVAL), Some(1000 + 1 - u64::from(BURST)));
}
