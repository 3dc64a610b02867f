//! Rules that choose routing tables.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::address::family;
use crate::answer::Answer;
use crate::{Error, Request, Socket};

/// A rule of IPv4 or IPv6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Sources that it is for; `None` is for all.
    pub source: Option<IpNetwork>,
    /// The table that packets are looked up in; 0 when it does something else.
    pub table: u32,
    /// Its place: rules with smaller numbers are asked first. With 0 the kernel puts a new one before
    /// all but its own first.
    pub priority: u32,
    /// It asks for more than a source, or does more than look up.
    pub has_more: bool,
}

impl Rule {
    /// A rule that has packets from a source looked up in a table, before those that are there.
    #[must_use]
    pub const fn of_source(source: IpNetwork, table: u32) -> Self {
        Self { source: Some(source), table, priority: 0, has_more: false }
    }

    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.action = RuleAction::ToTable;
        if let Some(source) = self.source {
            message.header.family = family(source.ip());
            message.header.src_len = source.prefix();
            message.attributes.push(RuleAttribute::Source(source.network()));
        }
        if self.priority > 0 {
            message.attributes.push(RuleAttribute::Priority(self.priority));
        }
        match u8::try_from(self.table) {
            Ok(table) => message.header.table = table,
            Err(_) => message.attributes.push(RuleAttribute::Table(self.table)),
        }
        message
    }

    fn what(&self) -> String {
        let source = self.source.map_or_else(|| "all".into(), |source| source.to_string());
        format!("rule from {source} lookup {}", self.table)
    }
}

impl Request {
    /// Adds a rule that has a source.
    #[must_use]
    pub fn add_rule(rule: &Rule) -> Self {
        let message = RouteNetlinkMessage::NewRule(rule.message());
        Self::new(format!("add {}", rule.what()), message, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Deletes a rule that has a source.
    #[must_use]
    pub fn delete_rule(rule: &Rule) -> Self {
        let message = RouteNetlinkMessage::DelRule(rule.message());
        Self::new(format!("delete {}", rule.what()), message, 0)
    }
}

impl Socket {
    /// The rules of both families.
    ///
    /// # Errors
    /// [`Error`], also when the kernel has no rules (`CONFIG_IP_MULTIPLE_TABLES`).
    pub fn rules(&mut self) -> Result<Vec<Rule>, Error> {
        let question = RouteNetlinkMessage::GetRule(RuleMessage::default());
        let answers = self.dump(&Request::dump("list rules".into(), question))?;
        Ok(answers.into_iter().filter_map(read).collect())
    }
}

fn read(answer: Answer) -> Option<Rule> {
    let Answer::Other(RouteNetlinkMessage::NewRule(message)) = answer else { return None };
    let header = message.header;
    // Multicast routing has rules as well.
    if !matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6) {
        return None;
    }
    let mut rule = Rule {
        source: None,
        table: u32::from(header.table),
        priority: 0,
        has_more: header.action != RuleAction::ToTable
            || header.dst_len > 0
            || header.tos > 0
            || header.flags.contains(RuleFlags::Invert),
    };
    for attribute in message.attributes {
        match attribute {
            RuleAttribute::Source(address) => rule.source = network(address, header.src_len),
            RuleAttribute::Priority(priority) => rule.priority = priority,
            RuleAttribute::Table(table) => rule.table = table,
            // Who made it; and what every rule has that suppresses nothing.
            RuleAttribute::Protocol(_) | RuleAttribute::SuppressPrefixLen(u32::MAX) => {}
            _ => rule.has_more = true,
        }
    }
    Some(rule)
}

fn network(address: IpAddr, prefix: u8) -> Option<IpNetwork> {
    IpNetwork::new(address, prefix).ok()
}
