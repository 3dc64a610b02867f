//! What is tested where: kernels, lanes, suites, and the tests that do not apply in a lane.

/// The kernels, by what `scripts/kernels` calls them.
pub(crate) const KERNELS: &[&str] = &["6.1", "6.12"];

/// A kind of machine that users have.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lane {
    pub(crate) name: &'static str,
    /// Modules that are loaded at the start. All others come when the kernel asks for them.
    pub(crate) loaded: &'static [&'static str],
    /// Modules that are not there, and neither is what needs them.
    pub(crate) without_modules: &'static [&'static str],
    /// Programs whose names begin so are not there.
    pub(crate) without_programs: &'static [&'static str],
    /// By what policyd writes its rules (`POLICYD_BACKEND`).
    pub(crate) backend: &'static str,
}

/// As Debian has it, with the module that bridges need for iptables to see their frames.
pub(crate) const FULL: Lane = Lane {
    name: "full",
    loaded: &["br_netfilter"],
    without_modules: &[],
    without_programs: &[],
    backend: "iptables",
};

/// nf_tables and nothing before it, as RHEL 10 and Talos have it.
pub(crate) const NFT_ONLY: Lane = Lane {
    name: "nft-only",
    loaded: &[],
    without_modules: &[
        "ip_tables",
        "ip6_tables",
        "x_tables",
        "nft_compat",
        "ip_set",
        "br_netfilter",
    ],
    without_programs: &["iptables", "ip6tables", "xtables-", "arptables", "ebtables", "ipset"],
    backend: "nftables",
};

pub(crate) const LANES: &[&Lane] = &[&FULL, &NFT_ONLY];

/// A binary of tests, and where it runs.
#[derive(Debug)]
pub(crate) struct Suite {
    /// The package, and the test's name in its `Cargo.toml`.
    pub(crate) name: &'static str,
    pub(crate) lanes: &'static [&'static Lane],
    /// The tests that run, for a suite that takes too long: names, or modules with `::` at the end.
    /// Empty: all of them.
    pub(crate) only: &'static [&'static str],
}

const fn whole(name: &'static str, lanes: &'static [&'static Lane]) -> Suite {
    Suite { name, lanes, only: &[] }
}

const fn part(
    name: &'static str,
    lanes: &'static [&'static Lane],
    only: &'static [&'static str],
) -> Suite {
    Suite { name, lanes, only }
}

/// Without br_netfilter policyd judges what routes pass, not what bridges forward.
const ROUTED_PODS: &[&str] = &[
    "bypass::ptp::",
    "changes::ptp::",
    "forging::",
    "identity::ptp::",
    "identity::without_a_gate_unknown_pods_pass",
    "node_port::",
    "odd_packets::ptp::",
    "order::",
    "paths::ptp::",
    "paths::pods_are_no_routers",
    "random::ptp::",
    "semantics::ptp::blocks",
    "semantics::ptp::defaults",
    "semantics::ptp::lifecycle",
    "semantics::ptp::peers",
    "semantics::ptp::pitfalls",
    "semantics::ptp::ports",
    "semantics::what_the_kernel_does_otherwise_is_seen",
    "snapshots::",
];

/// What packets meet on their way through services.
const SERVICES: &[&str] = &[
    "addresses::",
    "affinity::",
    "beside::",
    "conntrack_parameters::",
    "datagrams::",
    "endpoints::",
    "explain::",
    "localhost::",
    "meddled::",
    "metrics::",
    "node_ports::",
    "policies::",
    "scheduler::",
    "sctp::",
    "sources::",
];

/// What `make test-vm` runs. A suite is named once for each lane at most.
pub(crate) const SUITES: &[Suite] = &[
    whole("netlink/kernel", LANES),
    whole("lab/worlds", LANES),
    whole("lab/traffic", LANES),
    part("lab/faults", &[&FULL], &["firewall::", "masquerade::", "portmap::"]),
    part("lab/conformance", &[&FULL], &["every_conflist_adds_checks_and_deletes"]),
    part("lab/policy", &[&FULL], &["bypass::bridge::rejected_at_once"]),
    part("lab/policy", &[&NFT_ONLY], ROUTED_PODS),
    part("lab/agent", &[&FULL], &["preflight::"]),
    whole("lab/agent", &[&NFT_ONLY]),
    whole("lab/attachments", &[&NFT_ONLY]),
    whole("lab/node_network", &[&NFT_ONLY]),
    whole("lab/conformance", &[&NFT_ONLY]),
    whole("proxyd/kernel", &[&NFT_ONLY]),
    part("lab/services", &[&NFT_ONLY], SERVICES),
];

/// Tests that are built and run in no lane.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LeftOut {
    pub(crate) suite: &'static str,
    /// A module of it; empty: all of it.
    pub(crate) module: &'static str,
    /// Why they need not run.
    pub(crate) why: &'static str,
}

const fn left_out(suite: &'static str, module: &'static str, why: &'static str) -> LeftOut {
    LeftOut { suite, module, why }
}

const CALLS: &str = "it is about calls, files and processes, which are the same to every kernel";
const EFFECTS: &str = "what these plugins do to the kernel lab/traffic looks at";
const MANY: &str = "what it does thousands of times takes an emulated processor minutes, and the other tests of its suite do once";
const COUNTS: &str = "it counts what is asked of the kernel, which does not depend on it";

/// The tests of lab that run nowhere: all others, and those that come, are in [`SUITES`].
pub(crate) const LEFT_OUT: &[LeftOut] = &[
    left_out("lab/chained", "", CALLS),
    left_out("lab/cluster", "", SERVER),
    left_out("lab/differential", "", "it compares two suites on one kernel, whichever that is"),
    left_out("lab/faults", "chained", EFFECTS),
    left_out("lab/faults", "check", EFFECTS),
    left_out("lab/faults", "crowd", COUNTS),
    left_out("lab/faults", "holders", CALLS),
    left_out("lab/faults", "input", CALLS),
    left_out("lab/faults", "kills", CALLS),
    left_out("lab/faults", "leases", CALLS),
    left_out("lab/faults", "locks", CALLS),
    left_out("lab/faults", "parallel", CALLS),
    left_out("lab/faults", "portmap_index", COUNTS),
    left_out(
        "lab/faults",
        "restored",
        "it is about what nft saves, and its version is the machine's",
    ),
    left_out("lab/faults", "rollback", CALLS),
    left_out("lab/faults", "routes", EFFECTS),
    left_out("lab/faults", "rules", EFFECTS),
    left_out("lab/faults", "siblings", EFFECTS),
    left_out("lab/faults", "unheard", CALLS),
    left_out("lab/faults", "vanished", CALLS),
    left_out("lab/services", "away", SERVER),
    left_out("lab/services", "config_file", CALLS),
    left_out("lab/services", "daemon", CALLS),
    left_out("lab/services", "enormous", MANY),
    left_out("lab/services", "health_checks", CALLS),
    left_out("lab/services", "killed", MANY),
    left_out("lab/services", "many", MANY),
    left_out("lab/services", "takeover", IPTABLES),
];

/// Tests that do not apply in a lane.
#[derive(Debug)]
pub(crate) struct Except {
    pub(crate) lane: &'static Lane,
    pub(crate) suite: &'static str,
    /// A test's name, or a module's with `::` at the end.
    pub(crate) test: &'static str,
    /// Why it does not apply.
    pub(crate) why: &'static str,
}

const fn except(
    lane: &'static Lane,
    suite: &'static str,
    test: &'static str,
    why: &'static str,
) -> Except {
    Except { lane, suite, test, why }
}

const IPTABLES: &str = "it writes rules with the programs of iptables, or has them written";
const SLOW: &str =
    "on emulated processors fifty at once wait longer for a lock than it is waited for";
const PYTHON: &str = "it runs firewalld, which is written in Python";
const LONG: &str =
    "on emulated processors a hundred starts under traffic take longer than all other tests";
const SERVER: &str =
    "an API server takes minutes to start on emulated processors; what it tells is read alike";
const BRIDGED: &str =
    "policyd is not ready with pods on a bridge whose frames it cannot see (br_netfilter)";
const BRIDGES: &str = "it is about bridges that show iptables their frames (br_netfilter)";

pub(crate) const EXCEPT: &[Except] = &[
    except(&NFT_ONLY, "netlink/kernel", "ipset::", "it is about ipset"),
    except(&NFT_ONLY, "netlink/kernel", "iptables::", IPTABLES),
    except(&NFT_ONLY, "netlink/kernel", "nftables::", IPTABLES),
    except(
        &NFT_ONLY,
        "netlink/kernel",
        "bridges::bridged_packets_pass_iptables_when_they_are_told_to",
        BRIDGES,
    ),
    except(
        &NFT_ONLY,
        "netlink/kernel",
        "bridges::what_a_bridge_passes_to_iptables_is_set_and_read",
        BRIDGES,
    ),
    except(
        &NFT_ONLY,
        "netlink/kernel",
        "changes::links_are_told_as_they_come_change_and_go",
        BRIDGES,
    ),
    except(&NFT_ONLY, "netlink/kernel", "nflog::ports_of_bridges_are_told", BRIDGES),
    except(&NFT_ONLY, "netlink/kernel", "ports::destinations_of_iptables_rules_are_read", IPTABLES),
    except(&NFT_ONLY, "netlink/kernel", "ports::ports_of_iptables_rules_are_read", IPTABLES),
    except(&NFT_ONLY, "netlink/kernel", "ports::ports_of_rules_that_translate_are_read", IPTABLES),
    except(&FULL, "lab/faults", "firewall::many_at_once_among_the_rules_of_others", SLOW),
    except(&FULL, "lab/faults", "portmap::many_at_once_among_the_rules_of_others", SLOW),
    except(
        &NFT_ONLY,
        "lab/agent",
        "folder::rules_of_others_that_lead_to_what_goes_hold_up_nothing",
        IPTABLES,
    ),
    except(
        &NFT_ONLY,
        "lab/agent",
        "folder::cleanup_tells_of_a_set_that_others_use_and_removes_the_rest",
        IPTABLES,
    ),
    except(
        &NFT_ONLY,
        "lab/agent",
        "folder::cleanup_tells_who_leads_to_a_chain_and_removes_the_rest",
        IPTABLES,
    ),
    except(&NFT_ONLY, "lab/agent", "crowd::old_tables_that_others_wipe_come_back", IPTABLES),
    except(&NFT_ONLY, "lab/agent", "firewalled::", IPTABLES),
    except(&NFT_ONLY, "lab/agent", "kills::", LONG),
    except(&NFT_ONLY, "lab/agent", "preflight::a_missing_module_is_named_and_waited_for", IPTABLES),
    except(
        &NFT_ONLY,
        "lab/agent",
        "preflight::rules_that_take_programs_are_named_where_there_are_none",
        IPTABLES,
    ),
    except(
        &NFT_ONLY,
        "lab/agent",
        "closed::a_bridged_pod_is_opened_that_was_closed_after_the_commit",
        BRIDGED,
    ),
    except(
        &NFT_ONLY,
        "lab/agent",
        "closed::a_bridged_pod_is_opened_when_policyd_comes_back_and_when_it_learns_of_the_pod",
        BRIDGED,
    ),
    except(&NFT_ONLY, "lab/agent", "first_packets::bridged", BRIDGED),
    except(
        &NFT_ONLY,
        "lab/agent",
        "forged::no_frame_makes_a_flow_known_that_is_not_allowed",
        BRIDGED,
    ),
    except(
        &NFT_ONLY,
        "lab/agent",
        "forged::what_is_for_one_pod_comes_to_no_other_pods_port",
        BRIDGED,
    ),
    except(
        &NFT_ONLY,
        "lab/agent",
        "forged::no_link_local_address_is_reached_by_way_of_the_node",
        BRIDGED,
    ),
    except(
        &NFT_ONLY,
        "lab/agent",
        "forged::no_error_comes_about_an_answer_that_was_not_given",
        BRIDGED,
    ),
    except(&NFT_ONLY, "lab/agent", "forged::frames_of_other_protocols_pass_no_pods_port", BRIDGED),
    except(
        &NFT_ONLY,
        "lab/agent",
        "forged::no_source_is_forged_by_a_frame_to_the_bridge_alone",
        BRIDGED,
    ),
    except(
        &NFT_ONLY,
        "lab/agent",
        "forged::no_option_of_discovery_has_the_node_answer_a_forger",
        BRIDGED,
    ),
    except(
        &NFT_ONLY,
        "lab/agent",
        "forged::the_node_tells_nobody_of_fragments_of_a_forger",
        BRIDGED,
    ),
    except(&NFT_ONLY, "lab/agent", "frames::", BRIDGED),
    except(
        &NFT_ONLY,
        "lab/agent",
        "interfaces::a_bridge_that_shows_no_frames_is_told_of_and_holds_up_nothing_else",
        BRIDGED,
    ),
    except(
        &NFT_ONLY,
        "lab/agent",
        "interfaces::pods_on_one_bridge_are_isolated_from_each_other",
        BRIDGED,
    ),
    except(
        &NFT_ONLY,
        "lab/agent",
        "interfaces::what_others_bridges_carry_is_not_shown_to_rules",
        BRIDGED,
    ),
    except(
        &NFT_ONLY,
        "lab/agent",
        "interfaces::what_a_bridge_floods_or_takes_to_a_link_local_address_is_judged_too",
        BRIDGED,
    ),
    except(
        &NFT_ONLY,
        "lab/agent",
        "interfaces::no_forged_answer_makes_a_flow_to_an_isolated_pod_an_established_one",
        BRIDGED,
    ),
    except(&NFT_ONLY, "lab/agent", "live::what_bridges_bring_to_ports_is_compared_too", BRIDGED),
    except(
        &NFT_ONLY,
        "lab/agent",
        "live::of_bridged_pods_that_policyd_found_by_itself_it_says_what_is_not_known",
        BRIDGED,
    ),
    except(
        &NFT_ONLY,
        "lab/agent",
        "rewritten::discovery_passes_unasked_only_as_long_as_it_is_in_one_piece",
        BRIDGED,
    ),
    except(
        &NFT_ONLY,
        "lab/node_network",
        "accept::pods_pass_where_forward_is_closed_and_others_and_denied_ones_do_not",
        IPTABLES,
    ),
    except(
        &NFT_ONLY,
        "lab/node_network",
        "accept::rules_are_repaired_and_those_of_others_stay",
        IPTABLES,
    ),
    except(&NFT_ONLY, "lab/worlds", "bridge_with_masquerade", IPTABLES),
    except(&NFT_ONLY, "lab/worlds", "ptp_dual_stack", IPTABLES),
    except(&FULL, "lab/traffic", "firewalld::", PYTHON),
    except(&NFT_ONLY, "lab/traffic", "firewalld::", PYTHON),
    except(&NFT_ONLY, "lab/traffic", "firewall::among_iptables::", IPTABLES),
    except(&NFT_ONLY, "lab/traffic", "firewall::by_iptables::", IPTABLES),
    except(&NFT_ONLY, "lab/traffic", "hairpin::", IPTABLES),
    except(&NFT_ONLY, "lab/traffic", "masquerade_agent::", IPTABLES),
    except(&NFT_ONLY, "lab/traffic", "portmap::by_iptables::", IPTABLES),
    except(&NFT_ONLY, "lab/traffic", "portmap::flows::by_iptables::", IPTABLES),
];
