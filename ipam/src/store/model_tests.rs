//! The store against a naive model, with foreign changes and a damaged index between the calls.

use crate::testing::Lab;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::SystemTime;

/// A foreign change, or one of our calls.
#[derive(Debug, Clone)]
enum Step {
    Add(u8),
    Del(u8),
    Check(u8),
    ForeignAdd(u8, u8),
    ForeignBare(u8, u8),
    ForeignRemove(u8),
    ForeignReplace(u8, u8),
    /// Sets the directory's mtime back to what it was after our last call.
    RestoreTime,
    Damage(u16, Vec<u8>),
    Truncate(u16),
    RemoveIndex,
}

fn any_step() -> impl Strategy<Value = Step> {
    let owner = || 0_u8..6;
    let address = || 2_u8..14;
    prop_oneof![
        5 => owner().prop_map(Step::Add),
        4 => owner().prop_map(Step::Del),
        2 => owner().prop_map(Step::Check),
        3 => (address(), owner()).prop_map(|(a, o)| Step::ForeignAdd(a, o)),
        1 => (address(), owner()).prop_map(|(a, o)| Step::ForeignBare(a, o)),
        2 => address().prop_map(Step::ForeignRemove),
        2 => (address(), owner()).prop_map(|(a, o)| Step::ForeignReplace(a, o)),
        3 => Just(Step::RestoreTime),
        1 => (0_u16..9000, proptest::collection::vec(any::<u8>(), 1..64))
            .prop_map(|(at, junk)| Step::Damage(at, junk)),
        1 => (0_u16..9000).prop_map(Step::Truncate),
        1 => Just(Step::RemoveIndex),
    ]
}

fn key(owner: u8) -> String {
    format!("c{owner}\r\neth0")
}

fn name(address: u8) -> String {
    format!("10.1.0.{address}")
}

/// What a plugin without an index would do: reads everything, every time.
struct Naive {
    leases: BTreeMap<String, String>,
    last: u8,
}

impl Naive {
    fn owned(&self, owner: u8) -> Vec<String> {
        let holds = |content: &str| {
            self.leases
                .iter()
                .filter(|(_, c)| c.as_str() == content)
                .map(|(n, _)| n.clone())
                .collect()
        };
        let exact: Vec<String> = holds(&key(owner));
        if exact.is_empty() { holds(&format!("c{owner}")) } else { exact }
    }

    fn add(&mut self, owner: u8) -> Option<u8> {
        let has_bare = self.leases.values().any(|content| *content == format!("c{owner}"));
        if has_bare || !self.owned(owner).is_empty() {
            return None;
        }
        let round = (self.last + 1..=14).chain(1..=self.last);
        let free = round.filter(|a| *a != 1).find(|a| !self.leases.contains_key(&name(*a)))?;
        self.leases.insert(name(free), key(owner));
        self.last = free;
        Some(free)
    }

    fn del(&mut self, owner: u8) {
        for lease in self.owned(owner) {
            self.leases.remove(&lease);
        }
    }
}

fn foreign(lab: &Lab, naive: &mut Naive, address: u8, content: String, replace: bool) {
    if naive.leases.contains_key(&name(address)) == replace {
        let path = lab.directory().join(name(address));
        let _ = fs::remove_file(&path);
        lab.write(&name(address), content.as_bytes());
        naive.leases.insert(name(address), content);
    }
}

fn run(lab: &mut Lab, naive: &mut Naive, restore: &mut Option<SystemTime>, step: Step) {
    match step {
        Step::Add(owner) => {
            let wanted = naive.add(owner).map(name);
            let id = format!("c{owner}");
            let got = lab.try_add(&id).ok().map(|result| result.ips[0].address.ip().to_string());
            assert_eq!(got, wanted);
        }
        Step::Del(owner) => {
            naive.del(owner);
            lab.del(&format!("c{owner}"));
        }
        Step::Check(owner) => {
            let holds = lab.check(&format!("c{owner}")).is_ok();
            assert_eq!(holds, !naive.owned(owner).is_empty());
        }
        Step::ForeignAdd(address, owner) => foreign(lab, naive, address, key(owner), false),
        Step::ForeignBare(address, owner) => {
            foreign(lab, naive, address, format!("c{owner}"), false)
        }
        Step::ForeignReplace(address, owner) => foreign(lab, naive, address, key(owner), true),
        Step::ForeignRemove(address) => {
            if naive.leases.remove(&name(address)).is_some() {
                fs::remove_file(lab.directory().join(name(address))).unwrap();
            }
        }
        Step::RestoreTime => {
            if let (Some(time), Ok(directory)) = (*restore, File::open(lab.directory())) {
                directory.set_modified(time).unwrap();
            }
        }
        Step::Damage(at, junk) => {
            with_index(lab, |index| index.write_all_at(&junk, u64::from(at)).unwrap());
        }
        Step::Truncate(length) => with_index(lab, |index| index.set_len(length.into()).unwrap()),
        Step::RemoveIndex => drop(fs::remove_file(lab.index())),
    }
}

fn with_index(lab: &Lab, work: impl FnOnce(File)) {
    if let Ok(index) = File::options().write(true).open(lab.index()) {
        work(index);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_index_answers_as_reading_everything_would(steps in proptest::collection::vec(any_step(), 1..60)) {
        let mut lab = Lab::subnet("10.1.0.0/28");
        let mut naive = Naive { leases: BTreeMap::new(), last: 0 };
        let mut restore = None;
        for step in steps {
            let ours = matches!(step, Step::Add(_) | Step::Del(_));
            run(&mut lab, &mut naive, &mut restore, step);
            assert_eq!(&lab.leases(), &naive.leases);
            if ours {
                restore = fs::metadata(lab.directory()).and_then(|m| m.modified()).ok();
            }
        }
    }
}
