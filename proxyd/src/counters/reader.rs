//! Reading the kernel's counters, when somebody asks for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netlink::nftables::Client;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::nftables::{Key, Map, read_single, sets, table};
use crate::plan::At;

/// The kernel is read no more often than this.
const INTERVAL: Duration = Duration::from_secs(5);
/// For so long an answer waits for the kernel; then it shows what was read before.
const PATIENCE: Duration = Duration::from_secs(5);

/// As many increases are told at once: who takes them in has others to listen to.
const MOST_AT_ONCE: usize = 1024;

/// So many more connections came to a place.
pub type Increase = (At, u64);

/// What was read, or a part of it, for who knows whose places those are; and whom to tell that it is taken in.
pub type Reading = (Vec<Increase>, oneshot::Sender<()>);

/// Reads the kernel's counters, when they are asked for and not more often than each 5 s.
#[derive(Debug, Clone)]
pub struct Reader {
    last: Arc<tokio::sync::Mutex<Last>>,
    readings: mpsc::Sender<Reading>,
}

/// What was read last.
#[derive(Debug)]
struct Last {
    families: Vec<bool>,
    at: Option<Instant>,
    counted: Counts,
}

impl Reader {
    /// Of the tables of these families. What was read goes to whoever has the other end of the channel.
    #[must_use]
    pub fn new(families: Vec<bool>, readings: mpsc::Sender<Reading>) -> Self {
        let last = Last { families, at: None, counted: Counts::new() };
        Self { last: Arc::new(tokio::sync::Mutex::new(last)), readings }
    }

    /// Brings the counters up to date, unless they are, or nothing can be said in 5 s, or somebody else is at it.
    pub async fn refresh(&self) {
        let Ok(mut last) = Arc::clone(&self.last).try_lock_owned() else { return };
        if last.at.is_some_and(|it| it.elapsed() < INTERVAL) {
            return;
        }
        let readings = self.readings.clone();
        let reading = spawn_blocking(move || {
            last.at = Some(Instant::now());
            last.read()
        });
        let reading = async move {
            match reading.await {
                Ok(Ok(increases)) => tell(&readings, increases).await,
                Ok(Err(error)) => {
                    let error = cluster::chain(&error);
                    tracing::warn!("the counters of services cannot be read: {error}");
                }
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        };
        // It goes on: what it has read is not to be lost.
        if timeout(PATIENCE, tokio::spawn(reading)).await.is_err() {
            tracing::warn!("the counters of services are slow to read; older ones are shown");
        }
    }
}

/// Tells it part by part.
async fn tell(readings: &mpsc::Sender<Reading>, increases: Vec<Increase>) {
    for part in increases.chunks(MOST_AT_ONCE) {
        let (taken, is_taken) = oneshot::channel();
        // Who has ended takes nothing in.
        if readings.send((part.to_vec(), taken)).await.is_err() || is_taken.await.is_err() {
            return;
        }
    }
}

impl Last {
    /// What was counted since the last time.
    fn read(&mut self) -> Result<Vec<Increase>, netlink::Error> {
        let Some(mut client) = Client::open()? else { return Ok(Vec::new()) };
        let mut counted = Counts::new();
        let mut is_whole = true;
        for is_ipv4 in self.families.clone() {
            for set in sets(is_ipv4).iter().filter(|it| it.is_counted) {
                let read = client.counted_elements(table(is_ipv4), &set.name)?;
                is_whole &= read.is_whole;
                for (element, packets) in read.elements {
                    if let Some((Key::Place(map, at), _)) = read_single(set, &element) {
                        counted.insert((map, at), packets);
                    }
                }
            }
        }
        let increases = increases(&self.counted, &counted);
        if is_whole {
            self.counted = counted;
        } else {
            // What was not seen may be there nevertheless, and does not begin anew by that.
            self.counted.extend(counted);
        }
        Ok(increases)
    }
}

type Counts = HashMap<(Map, At), u64>;

/// By how much places' counters grew. One that is less than it was began anew.
fn increases(before: &Counts, now: &Counts) -> Vec<Increase> {
    let more = now.iter().filter_map(|(key, packets)| {
        let last = before.get(key).copied().unwrap_or_default();
        let more = packets.checked_sub(last).unwrap_or(*packets);
        (more > 0).then_some((key.1, more))
    });
    more.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    #[tokio::test]
    async fn what_many_services_counted_is_told_in_parts() {
        let address = "10.0.0.1".parse().unwrap();
        let at = |port| At { address, protocol: Protocol::Tcp, port };
        let all: Vec<Increase> = (1..=2500).map(|port| (at(port), 1)).collect();
        let (sender, mut receiver) = mpsc::channel(1);
        let told = async move { tell(&sender, all).await };
        let taken = async {
            let mut parts = Vec::new();
            while let Some((part, taken)) = receiver.recv().await {
                parts.push(part.len());
                taken.send(()).unwrap();
            }
            parts
        };
        let ((), parts) = tokio::join!(told, taken);
        assert_eq!(parts, [1024, 1024, 452]);
    }

    #[test]
    fn a_counter_that_is_less_than_before_began_anew() {
        let at = At { address: "10.0.0.1".parse().unwrap(), protocol: Protocol::Tcp, port: 80 };
        let counted = |packets| Counts::from([((Map::Pools, at), packets)]);
        let more = |before, now| increases(&counted(before), &counted(now));
        assert_eq!(increases(&Counts::new(), &counted(3)), [(at, 3)]);
        assert_eq!(more(3, 3), []);
        assert_eq!(more(3, 8), [(at, 5)]);
        assert_eq!(more(8, 2), [(at, 2)]);
    }
}
