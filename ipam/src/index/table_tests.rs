use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn temporary() -> File {
    tempfile::tempfile().unwrap()
}

fn v4(number: u32) -> IpAddr {
    IpAddr::V4(number.into())
}

fn entry(hash: u64, number: u32) -> Entry {
    Entry { hash, address: v4(number) }
}

fn create(entries: &[Entry]) -> Table {
    Table::create(temporary(), [1; 16], &mut entries.to_vec(), 0).unwrap().unwrap()
}

fn reopen(table: Table) -> Table {
    Table::open(table.file).unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Insert(u64, u32),
    Remove(usize),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Hashes near the table's end, and few of them: long probes that wrap around.
    let hash = prop_oneof![0_u64..4, 250_u64..260, any::<u64>()];
    let step = prop_oneof![
        4 => (hash, any::<u32>()).prop_map(|(hash, number)| Step::Insert(hash, number)),
        3 => any::<usize>().prop_map(Step::Remove),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 0..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_table_is_a_multimap(
        first in proptest::collection::btree_map(any::<u32>(), 240_u64..260, 0..60),
        steps in steps(),
    ) {
        let mut model: BTreeSet<(u64, IpAddr)> = first.iter().map(|(n, h)| (*h, v4(*n))).collect();
        let entries: Vec<Entry> = first.iter().map(|(n, h)| entry(*h, *n)).collect();
        let mut table = create(&entries);
        for step in steps {
            match step {
                Step::Insert(hash, number) if !table.is_crowded() => {
                    table.insert(entry(hash, number)).unwrap();
                    model.insert((hash, v4(number)));
                }
                Step::Insert(..) => {}
                Step::Remove(at) => {
                    if let Some((hash, address)) = model.iter().nth(at % model.len().max(1)).copied() {
                        table.remove(Entry { hash, address }, false).unwrap();
                        model.remove(&(hash, address));
                    }
                }
                Step::Reopen => {
                    table.seal(None).unwrap();
                    table = reopen(table);
                }
            }
            prop_assert_eq!(table.header().live as usize, model.len());
        }
        for hash in model.iter().map(|(hash, _)| *hash).chain([0, 255, 256, 12345]) {
            let found: BTreeSet<IpAddr> = table.find(hash).unwrap().into_iter().collect();
            let wanted: BTreeSet<IpAddr> =
                model.iter().filter(|(other, _)| *other == hash).map(|(_, address)| *address).collect();
            prop_assert_eq!(found, wanted);
        }
        let all: BTreeSet<(u64, IpAddr)> =
            table.entries().unwrap().into_iter().map(|entry| (entry.hash, entry.address)).collect();
        prop_assert_eq!(all, model);
    }

    #[test]
    fn damaged_bytes_are_an_error_or_harmless(
        offset in 0_u64..9000,
        junk in proptest::collection::vec(any::<u8>(), 1..600),
        length in 0_u64..10_000,
    ) {
        let entries: Vec<Entry> = (0..100).map(|n| entry(u64::from(n) * 7, n)).collect();
        let mut table = create(&entries);
        table.seal(None).unwrap();
        table.file.write_all_at(&junk, offset).unwrap();
        table.file.set_len(length).unwrap();
        let Ok(mut table) = Table::open(table.file) else { return Ok(()) };
        for wanted in &entries {
            // What is found is right, and nothing that was there is missed without an error.
            if let Ok(found) = table.find(wanted.hash) {
                prop_assert_eq!(found, vec![wanted.address]);
            }
            let _ = table.remove(*wanted, false);
            let _ = table.insert(*wanted);
        }
        let _ = table.entries();
    }
}

#[test]
fn removal_leaves_no_trace_where_none_is_needed() {
    let mut table = create(&[entry(5, 1), entry(5, 2)]);
    table.remove(entry(5, 1), false).unwrap();
    assert_eq!(table.header().dead, 1);
    assert_eq!(table.find(5).unwrap(), [v4(2)]);
    table.remove(entry(5, 2), false).unwrap();
    assert_eq!((table.header().live, table.header().dead), (0, 1));
}

#[test]
fn ten_thousand_entries_are_found() {
    let entries: Vec<Entry> =
        (0..10_000_u32).map(|n| entry(crate::index::owner_hash(&n.to_be_bytes()), n)).collect();
    let mut table = create(&entries);
    assert_eq!(table.header().capacity, 32_768);
    for entry in &entries {
        assert_eq!(table.find(entry.hash).unwrap(), [entry.address]);
    }
}
