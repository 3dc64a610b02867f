//! The answer as text.

use std::fmt;

use super::{EndpointReport, Outcome, Report, ServiceReport, WayReport};
use crate::words::all_of;

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, outcome, service, ways, endpoints, endpoints_left_out, notes } = self;
        writeln!(formatter, "{from} to {to}: {outcome}")?;
        service.iter().try_for_each(|it| write!(formatter, "{it}"))?;
        ways.iter().try_for_each(|it| write!(formatter, "{it}"))?;
        // Who comes to an endpoint needs no word where all do who come to any.
        let all = ways.iter().filter(|it| it.outcome == Outcome::Led).flat_map(|it| &it.from);
        let all: Vec<_> = all.collect();
        for endpoint in endpoints {
            let is_all = endpoint.from.len() == all.len();
            write!(formatter, "  endpoint {endpoint}")?;
            match endpoint.from.as_slice() {
                [] => writeln!(formatter, ": it gets no connection")?,
                _ if is_all => writeln!(formatter)?,
                some => writeln!(formatter, ": it gets those from {}", all_of(some))?,
            }
        }
        if *endpoints_left_out > 0 {
            writeln!(formatter, "  and {endpoints_left_out} more endpoints")?;
        }
        notes.iter().try_for_each(|it| writeln!(formatter, "note: {it}"))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Led => "led to an endpoint",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
            Self::LeftAlone => "left alone",
            Self::Depends => "it depends on who connects",
        })
    }
}

impl fmt::Display for ServiceReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, port, kind, settings } = self;
        match port {
            Some(port) => writeln!(formatter, "  Service {service}, port {port}: {kind}")?,
            None => writeln!(formatter, "  Service {service}: {kind}")?,
        }
        settings.iter().try_for_each(|it| writeln!(formatter, "    {it}"))
    }
}

impl fmt::Display for WayReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, outcome, reason, .. } = self;
        let from = all_of(from);
        match outcome {
            Outcome::Led => writeln!(formatter, "  from {from}: led to {reason}"),
            _ => writeln!(formatter, "  from {from}: {outcome}: {reason}"),
        }
    }
}

impl fmt::Display for EndpointReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, node, state, .. } = self;
        write!(formatter, "{address}")?;
        node.iter().try_for_each(|it| write!(formatter, " on {it}"))?;
        write!(formatter, " ({state})")
    }
}
