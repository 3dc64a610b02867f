//! Who is measured.

use std::fs;
use std::path::Path;
use std::time::Duration;

use lab::{Daemon, peer, policyd, program};
use measuring::Memory;
use nix::unistd::{SysconfVar, sysconf};

use crate::site::Site;
use crate::world::NODE;

/// A policy agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contestant {
    /// policyd by iptables and ipset.
    Iptables,
    /// policyd by nf_tables.
    Nftables,
    KubeRouter,
}

/// One that runs.
#[derive(Debug)]
pub(crate) struct Running {
    daemon: Daemon,
}

impl Contestant {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Iptables => "policyd, iptables",
            Self::Nftables => "policyd, nf_tables",
            Self::KubeRouter => "kube-router",
        }
    }

    pub(crate) fn is_policyd(self) -> bool {
        self != Self::KubeRouter
    }

    /// How long it may take for a change to be in force.
    pub(crate) const fn patience(self) -> Duration {
        match self {
            Self::Iptables | Self::Nftables => Duration::from_secs(60),
            Self::KubeRouter => Duration::from_mins(5),
        }
    }

    /// Starts it on the node of `site`.
    pub(crate) fn start(self, site: &Site, kubeconfig: &Path) -> Running {
        let log = site.node.home().join(format!("{}.log", self.name()));
        let mut command;
        match self {
            Self::Iptables | Self::Nftables => {
                let backend = if self == Self::Iptables { "iptables" } else { "nftables" };
                command = program(policyd());
                command.arg("--kubeconfig").arg(kubeconfig).args(["--node-name", NODE]);
                command.arg("--run-dir").arg(site.node.run_dir().join("podwire"));
                command.args(["--backend", backend]);
            }
            Self::KubeRouter => {
                command = program(peer("kube-router"));
                command.arg(format!("--kubeconfig={}", kubeconfig.display()));
                command.arg(format!("--hostname-override={NODE}"));
                command.args(["--run-firewall=true", "--run-router=false"]);
                command.args(["--run-service-proxy=false", "--health-port=0"]);
            }
        }
        let daemon = Daemon::start(self.name(), command, &site.node, log);
        Running { daemon }
    }
}

impl Running {
    pub(crate) fn memory(&self) -> Memory {
        Memory::of(self.daemon.id())
    }

    /// Processor time of it, and of the programs that it has run.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.daemon.id())).expect("it runs");
        let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
        let ticks = fields.split_whitespace().skip(11).take(4);
        let ticks: u64 = ticks.map(|it| it.parse::<u64>().expect("a number")).sum();
        let each = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64;
        Duration::from_secs_f64(ticks as f64 / each)
    }

    /// The sum and the number of one of policyd's histograms.
    pub(crate) fn histogram(site: &Site, name: &str) -> (f64, f64) {
        let text = site.node.sh("curl -sf --max-time 5 http://127.0.0.1:9099/metrics");
        let value = |suffix: &str| {
            let name = format!("policyd_{name}_{suffix}");
            let line = text.lines().find(|line| line.split(' ').next() == Some(&name));
            let value = line.and_then(|line| line.split(' ').nth(1)?.parse().ok());
            value.unwrap_or_else(|| panic!("no {name} in {text}"))
        };
        (value("sum"), value("count"))
    }

    pub(crate) fn end(mut self) {
        self.daemon.kill();
    }
}
