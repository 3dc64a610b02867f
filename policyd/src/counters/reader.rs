//! Reading the kernel's counters, when somebody asks for them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use netlink::nftables::Client;
use runner::Runner;

use super::{Counters, Place, RuleCounter};
use crate::chain;
use crate::dataplane::{Error, Kind, Programs};
use crate::ingress;
use crate::iptables::{Family, MANGLE, RAW};
use crate::nftables::{Layer, mark_of};

/// The kernel is read no more often than this.
const INTERVAL: Duration = Duration::from_secs(15);
/// For so long an answer waits for the kernel; then it shows what was read before.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads the kernel's counters, when they are asked for and not more often than each 15 s.
#[derive(Debug)]
pub struct Reader<R> {
    inner: Arc<tokio::sync::Mutex<Inner<R>>>,
}

#[derive(Debug)]
struct Inner<R> {
    programs: Programs<R>,
    families: Vec<Family>,
    last: Option<Instant>,
}

impl<R: Runner + Send + 'static> Reader<R> {
    /// Of rules of iptables by these programs, of these families.
    pub fn new(programs: Programs<R>, families: Vec<Family>) -> Self {
        let inner = Inner { programs, families, last: None };
        Self { inner: Arc::new(tokio::sync::Mutex::new(inner)) }
    }

    /// Brings the counters up to date, unless they are, or nothing can be said in 5 s, or somebody
    /// else is at it.
    pub(crate) async fn refresh(&self, metrics: Arc<crate::metrics::Metrics>) {
        // Asking legacy iptables for a table makes the kernel make it.
        if !metrics.counters.is_known() {
            return;
        }
        let Ok(mut inner) = Arc::clone(&self.inner).try_lock_owned() else { return };
        if inner.last.is_some_and(|last| last.elapsed() < INTERVAL) {
            return;
        }
        let reading = tokio::task::spawn_blocking(move || inner.read(&metrics.counters));
        if tokio::time::timeout(PATIENCE, reading).await.is_err() {
            tracing::warn!("the kernel's counters are slow to read; older ones are shown");
        }
    }
}

impl<R: Runner> Inner<R> {
    fn read(&mut self, counters: &Counters) {
        self.last = Some(Instant::now());
        let read = match counters.kind() {
            Some(Kind::Iptables) => self.read_printed(counters),
            Some(Kind::Nftables) => read_tables(counters),
            None => Ok(()),
        };
        if let Err(error) = read {
            tracing::warn!("the kernel's counters cannot be read: {}", chain(&error));
        }
        match ingress::packets() {
            Ok(packets) => counters.add_at_interfaces(packets),
            Err(error) => {
                tracing::warn!("the interfaces' counter cannot be read: {}", chain(&error));
            }
        }
    }

    fn read_printed(&mut self, counters: &Counters) -> Result<(), Error> {
        for family in self.families.clone() {
            let tables = [RAW, MANGLE].map(|table| self.programs.counted_table(family, table));
            counters.add_printed(family, &tables.into_iter().collect::<Result<String, _>>()?);
        }
        self.programs.take_ran();
        Ok(())
    }
}

fn read_tables(counters: &Counters) -> Result<(), Error> {
    let Some(mut client) = Client::open()? else { return Ok(()) };
    for layer in Layer::ALL {
        let rules = client.all_rules(layer.table())?.into_iter();
        let counted = rules.flat_map(|(chain, rules)| {
            rules.into_iter().filter_map(move |rule| {
                let id = rule.comment.as_deref().and_then(mark_of);
                Some(RuleCounter { chain: chain.clone(), id, packets: rule.packets? })
            })
        });
        counters.add(Place::Table(layer), counted);
    }
    Ok(())
}
