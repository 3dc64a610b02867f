//! The text of a list with podwire-policy last, and without it. Pure.

mod places;

use std::ops::Range;

use serde_json::{Map, Value};

use places::{elements, value_of};

/// The plugin.
const POLICY: &str = "podwire-policy";
/// What is put into lists.
const ENTRY: &str = r#"{"type": "podwire-policy"}"#;

/// Why a text is left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("this is no network configuration: it is not JSON, or its owner is just writing it")]
    NotJson,
    #[error(
        "this is a single plugin and not a list: a list is a file {{\"cniVersion\": ..., \"name\": ..., \"plugins\": [ ... ]}} with the ending .conflist, and the plugin (without cniVersion and name) is the first of its plugins"
    )]
    Single,
    #[error("the file is larger than a list can be ({0} bytes)")]
    TooLarge(u64),
    #[error(
        "this is a list, but runtimes take files for lists only by the ending .conflist: here they would not see podwire-policy"
    )]
    Ending,
    #[error("this is JSON that is nested too deep for a network configuration")]
    TooDeep,
    #[error("the list has no plugin of a network (plugins is empty, or no array)")]
    NoPlugins,
    #[error("this file is Multus's own, which calls the networks of other files")]
    Meta {
        /// The network that it calls.
        network: Option<String>,
    },
}

/// The text with podwire-policy as the last plugin; `None`: it is so already.
pub(super) fn chained(text: &str) -> Result<Option<String>, Refusal> {
    let list = List::parse(text)?;
    let last = list.plugins.len().checked_sub(1).ok_or(Refusal::NoPlugins)?;
    if list.policies == [last] {
        return Ok(None);
    }
    // One with options of somebody's keeps them.
    let held = list.policies.first().and_then(|index| list.plugins.get(*index)?.text(text));
    let entry = held.unwrap_or(ENTRY).to_owned();
    let bare = list.without_policies(text)?;
    List::parse(&bare)?.with_last(&bare, &entry).map(Some)
}

/// The text without podwire-policy; `None`: it is not there.
pub(super) fn unchained(text: &str) -> Result<Option<String>, Refusal> {
    let list = List::parse(text)?;
    if list.policies.is_empty() { Ok(None) } else { list.without_policies(text).map(Some) }
}

/// Where a value is in a text.
#[derive(Debug, Clone)]
struct Span(Range<usize>);

impl Span {
    fn text<'a>(&self, text: &'a str) -> Option<&'a str> {
        text.get(self.0.clone())
    }
}

/// Where the plugins of a list are.
#[derive(Debug)]
struct List {
    /// The place behind the array's bracket.
    begin: usize,
    plugins: Vec<Span>,
    /// Which of them are podwire-policy.
    policies: Vec<usize>,
}

impl List {
    fn parse(text: &str) -> Result<Self, Refusal> {
        let document: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| unreadable(&error))?;
        if let Some(network) = meta(&document) {
            return Err(Refusal::Meta { network });
        }
        let Some(plugins) = document.get("plugins") else {
            let is_single = cni::decode::lookup(&document, "type").is_some();
            return Err(if is_single { Refusal::Single } else { Refusal::NoPlugins });
        };
        let known = plugins.as_array().ok_or(Refusal::NoPlugins)?;
        let array = value_of(text, "plugins").ok_or(Refusal::NotJson)?;
        let spans: Vec<Span> = elements(text, array.start).into_iter().map(Span).collect();
        // What was found and what was parsed are the same, or nothing is changed.
        if spans.len() != known.len() {
            return Err(Refusal::NotJson);
        }
        let policies = known.iter().enumerate().filter(|(_, it)| kind(it) == Some(POLICY));
        let policies = policies.map(|(index, _)| index).collect();
        Ok(Self { begin: array.start + 1, plugins: spans, policies })
    }

    /// The text without each podwire-policy and the comma before it.
    fn without_policies(&self, text: &str) -> Result<String, Refusal> {
        let mut text = text.to_owned();
        for index in self.policies.iter().rev() {
            let own = self.plugins.get(*index).ok_or(Refusal::NotJson)?.0.clone();
            let before = index.checked_sub(1).and_then(|it| self.plugins.get(it));
            let is_kept = |it: &usize| !self.policies.contains(it);
            let range = match (before, index + 1 < self.plugins.len()) {
                (Some(before), _) => before.0.end..own.end,
                (None, true) if (1..self.plugins.len()).any(|it| is_kept(&it)) => {
                    // Those behind it that went before had their comma with them.
                    own.start..own.end + gap(&text, own.end)
                }
                _ => return Err(Refusal::NoPlugins),
            };
            text.replace_range(range, "");
        }
        Ok(text)
    }

    /// The text with an entry behind the last one, as far from it as the first is from its bracket.
    fn with_last(&self, text: &str, entry: &str) -> Result<String, Refusal> {
        let (Some(first), Some(last)) = (self.plugins.first(), self.plugins.last()) else {
            return Err(Refusal::NoPlugins);
        };
        let space = text.get(self.begin..first.0.start).ok_or(Refusal::NotJson)?;
        let mut text = text.to_owned();
        text.insert_str(last.0.end, &format!(",{space}{entry}"));
        Ok(text)
    }
}

/// The library has no other way to tell of the depth than its words.
fn unreadable(error: &serde_json::Error) -> Refusal {
    if error.to_string().starts_with("recursion limit") {
        Refusal::TooDeep
    } else {
        Refusal::NotJson
    }
}

/// The bytes from the end of an element to what is now the next: white space and a comma.
fn gap(text: &str, end: usize) -> usize {
    let is_between = |byte: &u8| byte.is_ascii_whitespace() || *byte == b',';
    text.bytes().skip(end).take_while(is_between).count()
}

fn kind(plugin: &Value) -> Option<&str> {
    cni::decode::lookup(plugin.as_object()?, "type")?.as_str()
}

/// Whether this is the configuration of Multus (also of its thin client), and the network that it names.
fn meta(document: &Map<String, Value>) -> Option<Option<String>> {
    let is_meta = |it: &str| it.starts_with("multus");
    let of_plugin = |plugin: &Map<String, Value>| {
        let kind = cni::decode::lookup(plugin, "type").and_then(Value::as_str);
        let network = cni::decode::lookup(plugin, "clusterNetwork").and_then(Value::as_str);
        kind.is_some_and(is_meta).then(|| network.map(str::to_owned))
    };
    let plugins = document.get("plugins").and_then(Value::as_array).into_iter().flatten();
    of_plugin(document).or_else(|| plugins.filter_map(Value::as_object).find_map(of_plugin))
}

#[cfg(test)]
mod tests;
