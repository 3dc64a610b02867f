//! Compares the records of the twins and judges podwire's.

use lab::{Suite, World, difference};

use crate::case::{Case, Expect};
use crate::twin::{Outcome, Record, run};
use crate::wanted::Wanted;

/// Runs a case on both sides; returns what is wrong, each with its step.
pub(crate) fn compare(case: &Case, left: &Suite, right: &Suite, wanted: &Wanted) -> Vec<String> {
    let (ours, theirs) = (run(case, left), run(case, right));
    let mut faults = Vec::new();
    let start = difference(&ours.before.lines, &theirs.before.lines);
    if !start.is_empty() {
        faults.push(format!("the twins do not start alike\n{start}"));
    }
    let (mut parted, mut detached) = (false, false);
    for (step, (our, their)) in case.steps.iter().zip(ours.outcomes.iter().zip(&theirs.outcomes)) {
        let changes_the_world = ["ADD", "DEL", "GC"].contains(&step.command);
        // The reference compared with itself goes on where podwire would have parted from it.
        let expect = if detached { &Expect::Agree } else { &step.expect };
        detached |= left.name != "podwire" && step.expect.parts();
        if parted {
            faults.extend(alone(&step.expect, our, left));
            continue;
        }
        match judge(expect, our, their, left) {
            // What follows from it would only hide it.
            Verdict::Fault(fault) => {
                faults.push(format!("[{}] {fault}", our.label));
                break;
            }
            Verdict::Parts(id) => {
                wanted.note(id);
                parted |= changes_the_world;
                continue;
            }
            Verdict::Comparable => {}
        }
        let found = difference(&lines(our), &lines(their));
        let found = wanted.explain(&case.name, &our.label, found);
        if !found.is_empty() {
            let (left, right) = (left.name, right.name);
            faults.push(format!("[{}] differs (- {left}, + {right})\n{found}", our.label));
        }
    }
    if left.name == "podwire" {
        faults.extend(own_faults(case, &ours));
    }
    faults
}

enum Verdict {
    Fault(String),
    /// The sides part here, as the wanted difference says.
    Parts(&'static str),
    Comparable,
}

/// Judges the outcomes of a step by what the case expects.
fn judge(expect: &Expect, ours: &Outcome, theirs: &Outcome, left: &Suite) -> Verdict {
    let pair = (ours.reply.succeeded(), theirs.reply.succeeded());
    let both = || format!("left: {}\nright: {}", ours.reply, theirs.reply);
    let wrong = |what: &str| Verdict::Fault(format!("{what}\n{}", both()));
    match (expect, pair) {
        (Expect::Same, (true, true)) | (Expect::Agree, _) => Verdict::Comparable,
        (Expect::Same, _) => wrong("both were to succeed"),
        (Expect::Error(code), (false, false)) => {
            code_fault(*code, ours, left).map_or(Verdict::Comparable, Verdict::Fault)
        }
        (Expect::Error(_), _) => wrong("both were to fail"),
        // Compared with itself, the reference does not part from itself.
        (Expect::OnlyReference(..) | Expect::OnlyPodwire(_), _) if left.name != "podwire" => {
            Verdict::Comparable
        }
        (Expect::OnlyReference(code, id), (false, true)) => {
            code_fault(*code, ours, left).map_or(Verdict::Parts(id), Verdict::Fault)
        }
        (Expect::OnlyReference(..), _) => wrong("podwire was to refuse, the reference to succeed"),
        (Expect::OnlyPodwire(id), (true, false)) => Verdict::Parts(id),
        (Expect::OnlyPodwire(_), _) => wrong("podwire was to succeed, the reference to fail"),
    }
}

/// What is wrong with podwire's outcome after the sides have parted.
fn alone(expect: &Expect, ours: &Outcome, left: &Suite) -> Option<String> {
    let wrong = |what: &str| Some(format!("[{}] {what}\n{}", ours.label, ours.reply));
    match (expect, ours.reply.succeeded()) {
        (Expect::Agree, _) | (Expect::Same | Expect::OnlyPodwire(_), true) => None,
        (Expect::Same | Expect::OnlyPodwire(_), false) => wrong("podwire was to succeed"),
        (Expect::Error(_) | Expect::OnlyReference(..), true) => wrong("podwire was to fail"),
        (Expect::Error(code) | Expect::OnlyReference(code, _), false) => {
            code_fault(*code, ours, left)
        }
    }
}

/// What is wrong with podwire's error object. The codes of the reference are not judged.
fn code_fault(code: u64, ours: &Outcome, left: &Suite) -> Option<String> {
    if left.name != "podwire" {
        return None;
    }
    let error = ours.reply.error();
    let good = error.code == code && !error.msg.is_empty() && error.version.is_some();
    (!good).then(|| format!("wanted code {code}, a text and cniVersion: {error:?}\n{}", ours.reply))
}

fn lines(outcome: &Outcome) -> Vec<String> {
    outcome.answer.iter().chain(&outcome.world.lines).cloned().collect()
}

/// What podwire must do whatever the reference does: a failed ADD changes nothing, and after a DEL
/// nothing is left but what stays by design.
fn own_faults(case: &Case, record: &Record) -> Vec<String> {
    let mut faults = Vec::new();
    let bridge = case.conf["bridge"].as_str().unwrap_or("cni0");
    let tell = |what: &str, from: &World, to: &World, label: &str| {
        let found = difference(&lasting(from, bridge), &lasting(to, bridge));
        (!found.is_empty()).then(|| format!("[{label}] {what} (- gone, + left)\n{found}"))
    };
    let mut last = &record.before;
    for (step, outcome) in case.steps.iter().zip(&record.outcomes) {
        if step.command == "ADD" && !outcome.reply.succeeded() {
            faults.extend(tell("a failed ADD left its mark", last, &outcome.world, &outcome.label));
        }
        last = &outcome.world;
    }
    if let Some(end) = record.outcomes.last()
        && ends_as_it_began(case)
        && end.reply.succeeded()
    {
        let [before, after] = [&record.before, &end.world].map(|world| without_moved(case, world));
        faults.extend(tell("the end is not the beginning", &before, &after, &end.label));
    }
    faults
}

/// The world without the routes of the main table that sbr moves: they go with the interface, which is
/// deleted next.
fn without_moved(case: &Case, world: &World) -> World {
    let mut world = world.clone();
    let is_moved = |line: &String| {
        line.starts_with("pod")
            && (line.contains(" route4 main ") || line.contains(" route6 main "))
    };
    world.lines.retain(|line| case.plugin != "sbr" || !is_moved(line));
    world
}

/// Whether a case goes from an ADD to a DEL that can remove all: it has the namespace, and nobody
/// else changes anything.
fn ends_as_it_began(case: &Case) -> bool {
    let begins = case.steps.first().is_some_and(|step| step.command == "ADD");
    let ends = case.steps.last().is_some_and(|step| {
        step.command == "DEL" && step.env.iter().all(|(name, _)| *name != "CNI_NETNS")
    });
    let left_over = case.on_node.iter().any(|line| line.contains("CNI-"));
    let by_others = !case.in_pod.is_empty() || case.steps.iter().any(|step| step.before.is_some());
    begins && ends && !left_over && !by_others
}

/// Whether it is a part of a table that all pods share.
fn is_shared(kind: &str, line: &str) -> bool {
    let masquerades = line.contains("\"cni_plugins_masquerade\"");
    // What all containers share: chains that lead to theirs, a table of maps.
    let publishes = ["\"podwire-portmap\"", "\"podwire-firewall\"", "\"cni_hostport\""]
        .iter()
        .any(|it| line.contains(it))
        && !line.contains("\"elem\"");
    // Bridges' policies stay with them.
    let isolates = line.contains("\"podwire-firewall\"");
    let checks = line.contains("{\"family\":\"bridge\",\"name\":\"nat\"}")
        || line.contains("\"family\":\"bridge\",\"table\":\"nat\",\"name\":\"PREROUTING\"");
    match kind {
        "rule" => {
            masquerades && line.contains("\"chain\":\"postrouting\"")
                || line.contains("\"podwire-portmap\"")
                || isolates
        }
        _ => masquerades || checks || publishes || isolates,
    }
}

/// The facts without those that outlive the pods by design: the bridge and its addresses, IP
/// forwarding, the address of lo, locks, host-local's own files, which are no leases, and the tables of
/// nf_tables in which the pods' rules were. Rules there are told without their place, which those move.
fn lasting(world: &World, bridge: &str) -> Vec<String> {
    let stays = |line: &String| {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            [_, "sysctl", "net", ..] => true,
            // Once up, lo keeps its address and its queue.
            [_, "address", "lo", ..] | [_, "link", "lo", "qdisc=noqueue" | "qdisc=noop"] => true,
            [_, "route4", "local", destination, ..] => destination.starts_with("127."),
            [_, "sysctl", _, setting] => {
                // What tuning writes goes with the namespace, and what portmap writes with the link.
                let keys = [
                    "ipv6/forwarding=",
                    "ipv4/arp_filter=",
                    "ipv6/hop_limit=",
                    "ipv4/route_localnet=",
                ];
                keys.iter().any(|key| setting.starts_with(key))
            }
            ["file", path, ..] => {
                let name = path.rsplit('/').next().unwrap_or_default();
                path.ends_with('/')
                    || path.starts_with("/run/podwire/")
                    || path.split('/').any(|part| part == ".podwire")
                    || name == "lock"
                    || name.starts_with("last_reserved_ip.")
            }
            // What limits the host's end goes with it.
            [_, "link", link, "qdisc=tbf" | "qdisc=noqueue" | "txqlen=1000"]
            | [_, "traffic", "filters", "of", link, ..] => link.starts_with("veth"),
            [_, "nft", kind, ..] => is_shared(kind, line),
            // What all containers share, and what keeps bridges apart.
            [_, "iptables4" | "iptables6", "filter", chain, ..] => {
                let is_own = [" -s ", " -d "].iter().any(|it| line.contains(it));
                ["FORWARD", "INPUT", "OUTPUT", "MY-RULES", "CNI-ADMIN"].contains(&chain)
                    || chain.starts_with("CNI-ISOLATION-")
                    || chain == "CNI-FORWARD" && !is_own
            }
            [_, "iptables4" | "iptables6", "nat", chain, ..] => {
                chain.starts_with("CNI-HOSTPORT-") && !line.contains(" -j CNI-DN-")
                    || line.contains(" -j CNI-HOSTPORT-")
            }
            _ => false,
        }
    };
    let without_place = |line: String| match line.split_once(" nft rule #") {
        Some((place, rule)) => {
            format!("{place} nft rule {}", rule.split_once(' ').map_or("", |it| it.1))
        }
        None => line,
    };
    let world = world.without_bridge(bridge);
    world.lines.into_iter().filter(|line| !stays(line)).map(without_place).collect()
}
