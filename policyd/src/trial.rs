//! `policyd preflight`, and waiting until it succeeds: a process of its own, since who moved into a
//! namespace made with a user namespace cannot come back.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use netlink::nftables::Sides;
use policyd::agent::{Readiness, Status};
use policyd::dataplane::{Kind, Programs};
use policyd::{chain, closed, frames, preflight};
use runner::{OsRunner, Program, Runner};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::cli::Run;
use crate::run::{families, programs};

/// The exit code where the rules cannot be tried.
const NOT_TRIED: u8 = 3;
/// The one where the kernel cannot hold them by nf_tables, which was not asked for, but by iptables.
const BY_IPTABLES: u8 = 4;
/// Why it is iptables that was tried, where nothing was said, and how it need not be.
const HELD_BY_IPTABLES: &str = "--backend auto takes iptables as this node holds rules of policyd's that were made by it: an image that has its programs (podwire:VERSION) moves them to nf_tables with --backend nftables; after a reboot there are none";
/// A module that is missing may be loaded any time.
const PAUSE: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_mins(1);

/// Tries the rules, in a namespace that ends with this process.
pub(crate) fn run(options: &Run) -> ExitCode {
    // Which tables the node uses is only to be seen in its own namespace.
    let programs = programs();
    let kind = match options.kind() {
        Ok(kind) => kind,
        Err(error) => {
            tell(&chain(&error));
            return ExitCode::FAILURE;
        }
    };
    // Whatever is held is held by the node's namespace.
    let is_held = options.given_kind().is_none()
        && kind == Kind::Iptables
        && Kind::held().is_ok_and(|it| it == Some(Kind::Iptables));
    if let Err(error) = preflight::enter_scratch_namespace() {
        tell(&chain(&error));
        return ExitCode::from(NOT_TRIED);
    }
    let tried = try_out(kind, options, programs.clone());
    let Err(problem) = tried else {
        try_the_rest();
        return ExitCode::SUCCESS;
    };
    tell(&problem);
    if is_held {
        tell(HELD_BY_IPTABLES);
    }
    let has_choice = options.given_kind().is_none() && kind == Kind::Nftables;
    if has_choice && try_out(Kind::Iptables, options, programs).is_ok() {
        tell("by iptables it can: that is taken");
        return ExitCode::from(BY_IPTABLES);
    }
    ExitCode::FAILURE
}

fn tell(text: &str) {
    // The exit code tells as much.
    _ = writeln!(io::stderr(), "{text}");
}

/// Tries the rules of policies and of masquerading by this way.
fn try_out(kind: Kind, options: &Run, programs: Programs<OsRunner>) -> Result<(), String> {
    preflight::run(kind, programs.clone(), &families(), &options.settings())
        .map_err(|error| chain(&error))?;
    if !options.masquerade.masquerade {
        return Ok(());
    }
    // A configuration that cannot be used is told elsewhere.
    let report = options.masquerade.agent(kind, programs).reconcile(Instant::now());
    report.kernel.map_or(Ok(()), |written| written.map(drop).map_err(|error| chain(&error)))
}

/// What most nodes do well without: nodes without pods on bridges, and those on which no pod starts
/// while policyd is away. This is not held against the kernel.
fn try_the_rest() {
    if let Err(error) = frames::try_out() {
        tell(&format!("no pod can be on a bridge: {}", chain(&error)));
    }
    match closed::try_out() {
        Ok(Sides::Both) => {}
        Ok(Sides::Ingress) => {
            let missing = "does the kernel have CONFIG_NETFILTER_EGRESS (Linux 5.16)?";
            tell(&format!(
                "a pod that starts while policyd is away can be sent to by its link-local address: {missing}"
            ));
        }
        Err(error) => {
            tell(&format!(
                "no pod can start while policyd is away, and only table raw looks at sources: {}",
                chain(&error)
            ));
        }
    }
}

/// Waits until the rules of these options can be had; whether only by iptables, though nothing was said.
pub(crate) async fn wait(status: &Status) -> bool {
    let arguments: Vec<String> =
        env::args_os().skip(1).map(|it| it.to_string_lossy().into_owned()).collect();
    loop {
        let arguments = arguments.clone();
        let mut attempt = spawn_blocking(move || attempt(&arguments));
        let tried = loop {
            status.beat();
            // Loading modules may take longer than a loop may stand still.
            if let Ok(tried) = timeout(PAUSE, &mut attempt).await {
                break tried;
            }
        };
        match tried.map_err(|error| error.to_string()).flatten() {
            Ok(does_only_iptables) => return does_only_iptables,
            Err(problem) => status.set_unready(Readiness::Failing(problem)),
        }
        status.beat();
        sleep(PAUSE).await;
        status.beat();
    }
}

/// Runs this program as `policyd ... preflight`.
fn attempt(arguments: &[String]) -> Result<bool, String> {
    let mut args: Vec<&str> = arguments.iter().map(String::as_str).collect();
    args.push("preflight");
    let program = Program {
        file: "/proc/self/exe".into(),
        args: &args,
        timeout: Some(TIMEOUT),
        ..Program::default()
    };
    let output = OsRunner.run(&program).map_err(|error| chain(&error))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() {
        if !said.is_empty() {
            tracing::warn!("{said}");
        }
        return Ok(false);
    }
    if output.status.code() == Some(NOT_TRIED.into()) {
        tracing::warn!("{said}; the first write will show whether the kernel can hold the rules");
        return Ok(false);
    }
    if output.status.code() == Some(BY_IPTABLES.into()) {
        tracing::warn!("{said}");
        return Ok(true);
    }
    Err(if said.is_empty() { format!("the preflight ended with {}", output.status) } else { said })
}
