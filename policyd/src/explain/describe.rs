//! One direction's decision in words.

use super::reasons::{self, Question};
use super::{Outcome, PolicyReport, RuleReport, Side, Traffic};
use crate::evaluate::{Decision, Exemption, PolicyOutcome, RuleOutcome, Verdict, isolating};
use crate::model::{Direction, NamespacedName, Policy, Rule};
use crate::words;
use crate::{Packet, World};

pub(super) fn side(
    world: &World,
    packet: &Packet,
    traffic: Traffic,
    verdict: &Verdict,
    direction: Direction,
) -> Side {
    match verdict.decision(direction) {
        Decision::Exempt(exemption) => Side {
            subject: None,
            outcome: Outcome::Allowed,
            reason: exempt(world, packet, direction, *exemption),
            policies: Vec::new(),
        },
        Decision::NotIsolated { subject } => Side {
            subject: Some(subject.to_string()),
            outcome: Outcome::Allowed,
            reason: not_isolated(world, packet, direction),
            policies: Vec::new(),
        },
        Decision::Isolated { subject, policies } => {
            let question = Question { world, packet, traffic, direction };
            isolated(&question, subject, policies)
        }
    }
}

fn exempt(world: &World, packet: &Packet, direction: Direction, exemption: Exemption) -> String {
    match (exemption, direction, &packet.from_node) {
        (Exemption::Itself, ..) => "a pod always reaches itself".to_owned(),
        (Exemption::OwnNode, _, node) => {
            let node = node.as_deref().unwrap_or("the node");
            format!("{node}, on which the pod runs, always reaches it")
        }
        (Exemption::NoPod, Direction::Egress, Some(node)) => {
            format!("node {node} sends it, and no policy holds for nodes")
        }
        (Exemption::NoPod, Direction::Egress, None) => no_pod(world, packet.source),
        (Exemption::NoPod, Direction::Ingress, _) => no_pod(world, packet.destination),
    }
}

fn no_pod(world: &World, address: std::net::IpAddr) -> String {
    let on_host = |pod: &&crate::model::Pod| pod.host_network && pod.addresses.contains(&address);
    match world.pods.iter().find(on_host) {
        Some(_) => format!("{address} is a node's address, and no policy holds for nodes"),
        None => format!("{address} is no pod's address, and policies hold for pods alone"),
    }
}

/// Names the policies that select the pod, but not for this direction: one may have been meant.
fn not_isolated(world: &World, packet: &Packet, direction: Direction) -> String {
    let reason = format!("no policy isolates it for {}", words::direction(direction));
    let subject = match direction {
        Direction::Ingress => world.subject_at(packet.destination),
        Direction::Egress => world.subject_at(packet.source),
    };
    let selecting = world.policies.iter().filter(|it| subject.is_some_and(|pod| it.selects(pod)));
    let mut names: Vec<_> = selecting.map(|policy| policy.name.to_string()).collect();
    names.sort();
    match (names.as_slice(), direction) {
        ([], _) => reason,
        (_, Direction::Ingress) => format!("{reason} ({} for egress alone)", words::all_of(&names)),
        (_, Direction::Egress) => format!("{reason} ({} for ingress alone)", words::all_of(&names)),
    }
}

fn isolated(question: &Question<'_>, subject: &NamespacedName, outcomes: &[PolicyOutcome]) -> Side {
    let address = match question.direction {
        Direction::Ingress => question.packet.destination,
        Direction::Egress => question.packet.source,
    };
    let isolating = question
        .world
        .subject_at(address)
        .map_or_else(Vec::new, |pod| isolating(question.world, pod, question.direction));
    // In the same order: `evaluate` asked the same function.
    let policies: Vec<_> = isolating
        .iter()
        .zip(outcomes)
        .map(|((object, rules), outcome)| policy(question, object, rules, outcome))
        .collect();
    let outcome = best(policies.iter().map(|policy| policy.outcome));
    let count = match policies.len() {
        1 => "1 policy isolates it".to_owned(),
        count => format!("{count} policies isolate it"),
    };
    let reason = match (outcome, policies.iter().find(|policy| policy.outcome == outcome)) {
        (Outcome::Allowed, Some(PolicyReport { policy, .. })) => {
            format!("{count}, and {policy} allows it")
        }
        (Outcome::Partly, _) => format!("{count}, and some ports are allowed"),
        _ => format!("{count}, and nothing allows it"),
    };
    Side { subject: Some(subject.to_string()), outcome, reason, policies }
}

fn policy(
    question: &Question<'_>,
    object: &Policy,
    rules: &[Rule],
    outcome: &PolicyOutcome,
) -> PolicyReport {
    let rules: Vec<_> = rules
        .iter()
        .zip(&outcome.rules)
        .enumerate()
        .map(|(index, (rule, outcome))| {
            let path = format!("spec.{}[{index}]", words::direction(question.direction));
            let details = reasons::of_rule(question, object, rule, *outcome, &path);
            let outcome = match (outcome, question.traffic) {
                (RuleOutcome::Matched { .. }, _) => Outcome::Allowed,
                (RuleOutcome::NoPort { .. }, Traffic::Any) => Outcome::Partly,
                _ => Outcome::Denied,
            };
            RuleReport { path, outcome, details }
        })
        .collect();
    let policy = outcome.policy.to_string();
    PolicyReport { policy, outcome: best(rules.iter().map(|rule| rule.outcome)), rules }
}

/// What several say together: what one of them allows is allowed.
fn best(outcomes: impl Iterator<Item = Outcome>) -> Outcome {
    outcomes.fold(Outcome::Denied, |best, outcome| match (best, outcome) {
        (Outcome::Allowed, _) | (_, Outcome::Allowed) => Outcome::Allowed,
        (Outcome::Partly, _) | (_, Outcome::Partly) => Outcome::Partly,
        _ => Outcome::Denied,
    })
}
