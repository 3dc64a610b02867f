//! `policyd preflight`, and waiting until it succeeds: a process of its own, since who moved into a
//! namespace made with a user namespace cannot come back.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use netlink::nftables::Sides;
use policyd::agent::{Readiness, Status};
use policyd::{chain, closed, frames, preflight};
use runner::{OsRunner, Program, Runner};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::cli::Run;
use crate::run::{families, programs};

/// The exit code where the rules cannot be tried.
const NOT_TRIED: u8 = 3;
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
            _ = writeln!(io::stderr(), "{}", chain(&error));
            return ExitCode::FAILURE;
        }
    };
    let tried = preflight::enter_scratch_namespace()
        .and_then(|()| preflight::run(kind, programs, &families(), &options.settings()));
    if tried.is_ok() {
        try_the_rest();
    }
    match &tried {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The exit code tells it too.
            _ = writeln!(io::stderr(), "{}", chain(error));
            let is_tried = matches!(error, preflight::Error::Rules(_));
            if is_tried { ExitCode::FAILURE } else { ExitCode::from(NOT_TRIED) }
        }
    }
}

/// What most nodes do well without: nodes without pods on bridges, and those on which no pod starts
/// while policyd is away. This is not held against the kernel.
fn try_the_rest() {
    if let Err(error) = frames::try_out() {
        _ = writeln!(io::stderr(), "no pod can be on a bridge: {}", chain(&error));
    }
    match closed::try_out() {
        Ok(Sides::Both) => {}
        Ok(Sides::Ingress) => {
            let missing = "does the kernel have CONFIG_NETFILTER_EGRESS (Linux 5.16)?";
            _ = writeln!(
                io::stderr(),
                "a pod that starts while policyd is away can be sent to by its link-local address: {missing}"
            );
        }
        Err(error) => {
            _ = writeln!(
                io::stderr(),
                "no pod can start while policyd is away, and only table raw looks at sources: {}",
                chain(&error)
            );
        }
    }
}

/// Waits until the rules of these options can be had.
pub(crate) async fn wait(status: &Status) {
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
            Ok(()) => return,
            Err(problem) => status.set_unready(Readiness::Failing(problem)),
        }
        status.beat();
        sleep(PAUSE).await;
        status.beat();
    }
}

/// Runs this program as `policyd ... preflight`.
fn attempt(arguments: &[String]) -> Result<(), String> {
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
        return Ok(());
    }
    if output.status.code() == Some(NOT_TRIED.into()) {
        tracing::warn!("{said}; the first write will show whether the kernel can hold the rules");
        return Ok(());
    }
    Err(if said.is_empty() { format!("the preflight ended with {}", output.status) } else { said })
}
