//! The podwire-policy plugin's configuration.

use std::time::Duration;

use cni::decode::Fields;
use cni::{Call, NetConf};

use crate::conf;
use crate::error::Error;

/// Milliseconds; a runtime gives up after some minutes.
const LONGEST_TIMEOUT: i64 = 60_000;
/// Seconds of a day.
const LONGEST_DOWN_TIMEOUT: i64 = 86_400;

/// What becomes of an ADD when policyd is away or late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnAgentDown {
    /// It succeeds; the node's gate keeps the pod's traffic back.
    Gate,
    /// It fails, and the runtime tries again.
    Retry,
}

/// The keys of a podwire-policy configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conf {
    /// The pod's interface on its default network.
    pub(crate) interface: String,
    /// How long policyd may take for one call.
    pub(crate) timeout: Duration,
    pub(crate) on_agent_down: OnAgentDown,
    /// How long policyd may be away before STATUS takes the node out of service.
    pub(crate) agent_down_timeout: Duration,
}

impl Conf {
    /// Reads the call's configuration.
    pub(crate) fn parse(call: &Call) -> Result<Self, Error> {
        conf::strictly(call, read)
    }

    /// Reads what can be read: for DEL and GC, which remove what they can.
    pub(crate) fn parse_leniently(call: &Call) -> Self {
        conf::leniently(call, read)
    }
}

/// Reads every key, telling problems to `fields`.
pub(crate) fn read(fields: &Fields<'_>) -> Conf {
    let _ = NetConf::dns(fields);
    Conf {
        interface: read_interface(fields),
        timeout: Duration::from_millis(read_number(fields, "timeout", 2_000, 1..=LONGEST_TIMEOUT)),
        on_agent_down: read_on_agent_down(fields),
        agent_down_timeout: Duration::from_secs(read_number(
            fields,
            "agentDownTimeout",
            120,
            0..=LONGEST_DOWN_TIMEOUT,
        )),
    }
}

fn read_interface(fields: &Fields<'_>) -> String {
    let name = fields.string("interface").unwrap_or("eth0");
    if let Some(problem) = cni::ifname_problem(name) {
        fields.invalid("interface", format!("{problem}: {name:?}"));
    }
    name.to_owned()
}

fn read_number(
    fields: &Fields<'_>,
    key: &'static str,
    default: u64,
    range: std::ops::RangeInclusive<i64>,
) -> u64 {
    let Some(number) = fields.integer(key) else { return default };
    if !range.contains(&number) {
        let text = format!("{number} is not from {} to {}", range.start(), range.end());
        fields.invalid(key, text);
        return default;
    }
    number.unsigned_abs()
}

fn read_on_agent_down(fields: &Fields<'_>) -> OnAgentDown {
    match fields.string("onAgentDown") {
        None | Some("gate") => OnAgentDown::Gate,
        Some("retry") => OnAgentDown::Retry,
        Some(other) => {
            fields.invalid("onAgentDown", format!("{other:?} is neither \"gate\" nor \"retry\""));
            OnAgentDown::Gate
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cni::decode::Problems;
    use serde_json::json;

    fn parsed(text: &serde_json::Value) -> (Conf, Vec<String>) {
        let problems = Problems::default();
        let fields = Fields::root(text.as_object().unwrap(), &problems);
        let conf = read(&fields);
        fields.finish();
        (conf, problems.into_vec().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn every_key_has_a_default() {
        let (conf, problems) = parsed(&json!({}));
        let expected = Conf {
            interface: "eth0".into(),
            timeout: Duration::from_secs(2),
            on_agent_down: OnAgentDown::Gate,
            agent_down_timeout: Duration::from_mins(2),
        };
        assert_eq!((conf, problems), (expected, vec![]));
    }

    #[test]
    fn every_key_is_read() {
        let (conf, problems) = parsed(&json!({"interface": "net0", "timeout": 500,
            "onAgentDown": "retry", "agentDownTimeout": 0}));
        let expected = Conf {
            interface: "net0".into(),
            timeout: Duration::from_millis(500),
            on_agent_down: OnAgentDown::Retry,
            agent_down_timeout: Duration::ZERO,
        };
        assert_eq!((conf, problems), (expected, vec![]));
    }

    #[test]
    fn wrong_values_are_told_and_the_defaults_hold() {
        let (conf, problems) = parsed(&json!({"interface": "a/b", "timeout": 0,
            "onAgentDown": "open", "agentDownTimeout": -1}));
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert_eq!((conf.timeout, conf.on_agent_down), (Duration::from_secs(2), OnAgentDown::Gate));
        let (_, problems) = parsed(&json!({"timeout": 60_001, "timeOut": "2s"}));
        assert_eq!(problems, ["timeout: expected an integer, found a string"]);
    }
}
