//! What `policyd explain --live` adds to the verdict: the kernel's side of it.

use std::collections::BTreeSet;
use std::error::Error;

use attachment::Files;
use cluster::complain;
use policyd::World;
use policyd::attachment::Attachment;
use policyd::dataplane::Kind;
use policyd::explain::Report;
use policyd::index::Index;
use policyd::iptables::{Settings, hooks};
use policyd::live::{Expected, Kernel, Live};
use policyd::source::Node;

use crate::alone::ATTACHMENTS;
use crate::cli::{Run, Switch};
use crate::run::{families, programs};

type Failure = Box<dyn Error + Send + Sync>;

/// What policyd makes of these objects, and of what the CNI plugin has told it.
pub(crate) fn expected(options: &Run, world: World, node: &Node) -> Result<Expected, Failure> {
    let (attachments, problems) = Files::new(&options.run_dir.join(ATTACHMENTS)).list()?;
    problems.iter().for_each(|it| complain(&policyd::chain(it)));
    let attachments = attachments.iter().map(Attachment::from);
    let index = Index::of(&node.name, options.manifests.is_none());
    Ok(Expected::new(world, index, attachments, settings(options, node)))
}

/// Compares what the kernel of this node holds with that, as far as the verdict's traffic goes.
pub(crate) fn compare(
    options: &Run,
    node: &Node,
    expected: &Expected,
    report: &Report,
) -> Result<Live, Failure> {
    let pairs: Vec<_> = report.paths.iter().flat_map(|it| it.addresses.clone()).collect();
    let kind = options.kind()?;
    let families = families();
    let kernel = match kind {
        Kind::Iptables => {
            Kernel::printed(&mut programs(), &families, &hooks(&settings(options, node)))?
        }
        Kind::Nftables => Kernel::tables(&families, &expected.needed(&pairs, &families))?,
    };
    let mut live = expected.compare(&pairs, &kernel);
    if options.given_kind().is_none() && live.lacks_all() && Kind::held()?.is_none() {
        live.notes.push(format!("the kernel holds no rules of policyd's, neither of nf_tables nor of iptables: compared is what policyd would write by {kind}"));
    }
    Ok(live)
}

/// Those of a policyd that runs with these options.
fn settings(options: &Run, node: &Node) -> Settings {
    let own = options.settings();
    let ranges: BTreeSet<_> = own.gated.iter().chain(&node.pod_ranges).copied().collect();
    let is_gated = options.gate == Switch::On;
    Settings { gated: ranges.into_iter().filter(|_| is_gated).collect(), ..own }
}
