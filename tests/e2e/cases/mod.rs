//! The tests.

mod chained;
mod churn;
mod connections;
mod identities;
mod matrix;
mod nodes;
mod paths;
mod policies;
mod proxies;
mod removals;
mod restarts;
mod upgrades;

use crate::Case;

/// On one node: whether all works together.
pub(crate) const SMOKE: &[Case] = &[
    ("pods_reach_pods_and_the_world", paths::pods_reach_pods_and_the_world),
    ("services_and_their_names", paths::services_and_their_names),
    ("a_policy_holds_and_probes_pass_it", policies::a_policy_holds_and_probes_pass_it),
    ("a_roll_of_policyd_breaks_nothing", restarts::a_roll_of_policyd_breaks_nothing),
    ("a_killed_policyd_breaks_nothing", restarts::a_killed_policyd_breaks_nothing),
    ("kubelet_and_containerd_come_back", restarts::kubelet_and_containerd_come_back),
    (
        "a_pod_that_sends_at_once_gets_nothing_out",
        policies::a_pod_that_sends_at_once_gets_nothing_out,
    ),
    ("connections_of_a_pod_go_with_it", connections::connections_of_a_pod_go_with_it),
    ("thirty_pods_leave_nothing", churn::thirty_pods_leave_nothing),
    (
        "kube_proxys_place_is_taken_and_given_back",
        proxies::kube_proxys_place_is_taken_and_given_back,
    ),
];

/// On several nodes.
pub(crate) const NODES: &[Case] = &[
    ("pods_of_all_nodes_reach_each_other", paths::pods_of_all_nodes_reach_each_other),
    ("pods_reach_pods_and_the_world", paths::pods_reach_pods_and_the_world),
    ("services_and_their_names", paths::services_and_their_names),
    ("a_policy_holds_across_nodes", policies::a_policy_holds_across_nodes),
    ("policies_of_each_kind_decide", matrix::policies_of_each_kind_decide),
    (
        "a_replaced_pod_keeps_its_rights_and_its_heir_gets_none",
        identities::a_replaced_pod_keeps_its_rights_and_its_heir_gets_none,
    ),
    ("an_upgrade_breaks_and_opens_nothing", upgrades::an_upgrade_breaks_and_opens_nothing),
    ("host_ports_and_bandwidth", chained::host_ports_and_bandwidth),
    ("a_node_that_was_rebooted_takes_pods", restarts::a_node_that_was_rebooted_takes_pods),
    ("a_node_leaves_and_joins", nodes::a_node_leaves_and_joins),
];

/// By IPv6 alone, and with proxyd in the place of kube-proxy: whether all works together.
pub(crate) const IPV6: &[Case] = &[
    ("pods_reach_pods_and_the_world", paths::pods_reach_pods_and_the_world),
    ("services_and_their_names", paths::services_and_their_names),
    ("a_policy_holds_and_probes_pass_it", policies::a_policy_holds_and_probes_pass_it),
    ("a_roll_of_policyd_breaks_nothing", restarts::a_roll_of_policyd_breaks_nothing),
    ("a_killed_policyd_breaks_nothing", restarts::a_killed_policyd_breaks_nothing),
    ("kubelet_and_containerd_come_back", restarts::kubelet_and_containerd_come_back),
    (
        "a_pod_that_sends_at_once_gets_nothing_out",
        policies::a_pod_that_sends_at_once_gets_nothing_out,
    ),
    ("connections_of_a_pod_go_with_it", connections::connections_of_a_pod_go_with_it),
    ("thirty_pods_leave_nothing", churn::thirty_pods_leave_nothing),
];

/// Many pods.
pub(crate) const CROWD: &[Case] = &[
    ("services_and_their_names", paths::services_and_their_names),
    (
        "kube_proxys_place_is_taken_and_given_back",
        proxies::kube_proxys_place_is_taken_and_given_back,
    ),
    ("a_hundred_pods_leave_nothing", churn::a_hundred_pods_leave_nothing),
    ("it_comes_off_the_nodes_and_on_by_helm", removals::it_comes_off_the_nodes_and_on_by_helm),
];
