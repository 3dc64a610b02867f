//! A case of the table: what is configured, what is called, and what is expected of podwire.

use serde_json::{Map, Value, json};

/// What a step must end in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Both succeed, with equal answers and worlds.
    Same,
    /// Both fail, and podwire with this code.
    Error(u64),
    /// Both do the same, whichever it is: a DEL of what was never added.
    Agree,
    /// Podwire fails with this code where the reference succeeds; the wanted difference says why.
    OnlyReference(u64, &'static str),
    /// Podwire succeeds where the reference fails; the wanted difference says why.
    OnlyPodwire(&'static str),
}

impl Expect {
    /// Whether podwire and the reference are to end differently.
    pub(crate) fn parts(&self) -> bool {
        matches!(self, Self::OnlyReference(..) | Self::OnlyPodwire(_))
    }
}

/// One call.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) command: &'static str,
    /// Which pod: 0 is `pod1`, with container `cid1`.
    pub(crate) pod: usize,
    pub(crate) expect: Expect,
    /// Variables that differ from the usual ones; `None` takes one away.
    pub(crate) env: Vec<(&'static str, Option<&'static str>)>,
    /// Keys that this call has otherwise than the case; `null` takes one away.
    pub(crate) patch: Value,
    /// The bytes on stdin, when they are no JSON.
    pub(crate) stdin: Option<&'static str>,
    /// A command on the node before the call.
    pub(crate) before: Option<&'static str>,
}

/// One row of the table.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) plugin: &'static str,
    pub(crate) conf: Value,
    /// The configuration of the plugin before this one in the list. Both suites stand on what the
    /// reference made of it.
    pub(crate) base: Option<Value>,
    /// What the node has in its list of kernel parameters that may be set.
    pub(crate) allow_list: Option<&'static str>,
    /// Commands on the node before the first call; `$HOME` is the node's directory.
    pub(crate) on_node: Vec<&'static str>,
    /// Commands in the first pod before the first call.
    pub(crate) in_pod: Vec<&'static str>,
    pub(crate) steps: Vec<Step>,
}

/// A call that both answer alike.
pub(crate) fn step(command: &'static str) -> Step {
    Step {
        command,
        pod: 0,
        expect: Expect::Same,
        env: Vec::new(),
        patch: json!({}),
        stdin: None,
        before: None,
    }
}

impl Step {
    pub(crate) fn pod(mut self, pod: usize) -> Self {
        self.pod = pod;
        self
    }

    pub(crate) fn expect(mut self, expect: Expect) -> Self {
        self.expect = expect;
        self
    }

    pub(crate) fn fails(self, code: u64) -> Self {
        self.expect(Expect::Error(code))
    }

    pub(crate) fn env(mut self, name: &'static str, value: &'static str) -> Self {
        self.env.push((name, Some(value)));
        self
    }

    pub(crate) fn unset(mut self, name: &'static str) -> Self {
        self.env.push((name, None));
        self
    }

    pub(crate) fn patch(mut self, patch: Value) -> Self {
        self.patch = patch;
        self
    }

    pub(crate) fn stdin(mut self, text: &'static str) -> Self {
        self.stdin = Some(text);
        self
    }

    /// Runs a shell line on the node before the call.
    pub(crate) fn before(mut self, line: &'static str) -> Self {
        self.before = Some(line);
        self
    }
}

impl Case {
    /// A case that adds, checks, deletes, and deletes again.
    pub(crate) fn new(name: &str, plugin: &'static str, conf: Value) -> Self {
        let mut case = Self {
            name: name.to_owned(),
            plugin,
            conf: json!({"cniVersion": "1.0.0", "name": "net1", "type": plugin}),
            base: None,
            allow_list: None,
            on_node: Vec::new(),
            in_pod: Vec::new(),
            steps: ["ADD", "CHECK", "DEL", "DEL"].map(step).into(),
        };
        merge(&mut case.conf, &conf);
        case
    }

    /// Sets keys of the configuration; `null` takes one away.
    pub(crate) fn with(mut self, keys: Value) -> Self {
        merge(&mut self.conf, &keys);
        self
    }

    /// Has the plugin stand behind another, which each pod of the case has been added by.
    pub(crate) fn on(mut self, base: Value) -> Self {
        self.base = Some(base);
        self
    }

    /// Sets the node's list of kernel parameters that may be set.
    pub(crate) fn allow_list(mut self, lines: &'static str) -> Self {
        self.allow_list = Some(lines);
        self
    }

    /// Sets the version, and leaves CHECK out where the version does not have it.
    pub(crate) fn version(mut self, version: &str) -> Self {
        self.conf["cniVersion"] = json!(version);
        if ["0.1.0", "0.2.0", "0.3.0", "0.3.1"].contains(&version) {
            self.steps.retain(|step| step.command != "CHECK");
        }
        self
    }

    pub(crate) fn on_node(mut self, line: &'static str) -> Self {
        self.on_node.push(line);
        self
    }

    pub(crate) fn in_pod(mut self, line: &'static str) -> Self {
        self.in_pod.push(line);
        self
    }

    pub(crate) fn steps(mut self, steps: Vec<Step>) -> Self {
        self.steps = steps;
        self
    }

    /// A variable of every call.
    pub(crate) fn env(mut self, name: &'static str, value: &'static str) -> Self {
        for step in &mut self.steps {
            step.env.push((name, Some(value)));
        }
        self
    }

    /// ADD fails, podwire's with this code; the DEL after it ends alike in both.
    pub(crate) fn fails(self, code: u64) -> Self {
        self.add_ends(Expect::Error(code))
    }

    /// Podwire refuses with this code what the reference does.
    pub(crate) fn refused(self, code: u64, why: &'static str) -> Self {
        self.add_ends(Expect::OnlyReference(code, why))
    }

    /// The CHECK of podwire succeeds where that of the reference does not.
    pub(crate) fn better_check(mut self, why: &'static str) -> Self {
        for step in self.steps.iter_mut().filter(|step| step.command == "CHECK") {
            step.expect = Expect::OnlyPodwire(why);
        }
        self
    }

    /// The ADD of podwire succeeds where that of the reference does not.
    pub(crate) fn better(mut self, why: &'static str) -> Self {
        self.steps[0].expect = Expect::OnlyPodwire(why);
        self
    }

    fn add_ends(mut self, expect: Expect) -> Self {
        let env = self.steps[0].env.clone();
        let with_env = |mut step: Step| {
            step.env.clone_from(&env);
            step
        };
        self.steps =
            vec![with_env(step("ADD").expect(expect)), with_env(step("DEL").expect(Expect::Agree))];
        self
    }
}

/// Sets the keys of `patch` in `conf`, at the top level; `null` takes one away.
pub(crate) fn merge(conf: &mut Value, patch: &Value) {
    let Some(conf) = conf.as_object_mut() else { return };
    for (key, value) in patch.as_object().unwrap_or(&Map::new()) {
        if value.is_null() {
            conf.shift_remove(key);
        } else {
            conf.insert(key.clone(), value.clone());
        }
    }
}
