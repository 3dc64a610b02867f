//! Values as Go reads them: `null`, and a text that is empty, say nothing.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use cluster::health::Listen;
use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

use crate::agent::Addresses;
use crate::conntrack_parameters::parse_seconds;
use crate::model::Problem;

/// A field of the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    /// Its path, such as `conntrack.min`.
    pub(super) path: &'a str,
    pub(super) value: &'a Value,
}

type Read<T> = Result<Option<T>, Problem>;

impl<'a> Field<'a> {
    /// It is not what is wanted.
    pub(super) fn problem(&self, wanted: &'static str) -> Problem {
        problem(self.path, self.value, wanted)
    }

    fn read<T>(&self, wanted: &'static str, read: impl FnOnce(&'a Value) -> Option<T>) -> Read<T> {
        match self.value {
            Value::Null => Ok(None),
            value => read(value).map(Some).ok_or_else(|| self.problem(wanted)),
        }
    }

    /// The same of a text that says something.
    fn read_text<T>(
        &self,
        wanted: &'static str,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Read<T> {
        match self.text()? {
            None => Ok(None),
            Some(text) => read(text).map(Some).ok_or_else(|| self.problem(wanted)),
        }
    }

    pub(super) fn object(&self) -> Read<&'a Map<String, Value>> {
        self.read("an object", Value::as_object)
    }

    pub(super) fn text(&self) -> Read<&'a str> {
        let text = self.read("a text", Value::as_str)?;
        Ok(text.filter(|it| !it.is_empty()))
    }

    pub(super) fn truth(&self) -> Read<bool> {
        self.read("true or false", Value::as_bool)
    }

    /// Of an `int32`, which has to be no less than 0.
    pub(super) fn count(&self) -> Read<u32> {
        self.read("a number (0 to 2147483647)", |it| {
            it.as_i64().and_then(|it| i32::try_from(it).ok()).and_then(|it| it.try_into().ok())
        })
    }

    pub(super) fn bit(&self) -> Read<u32> {
        let bit = self.count()?;
        match bit {
            Some(32..) => Err(self.problem("a bit (0 to 31)")),
            _ => Ok(bit),
        }
    }

    /// A time of whole seconds.
    pub(super) fn span(&self) -> Read<Duration> {
        let wanted = "a time of whole seconds, like 1h30m0s";
        self.read_text(wanted, |it| parse_seconds(it).ok())
    }

    pub(super) fn address(&self) -> Read<IpAddr> {
        self.read_text("an address", |it| it.parse().ok())
    }

    /// An address and a port, or an address alone.
    pub(super) fn place(&self, port: u16) -> Read<Listen> {
        self.read_text("an address and a port (1 to 65535), like 0.0.0.0:10256", |text| {
            let alone = || text.trim_matches(['[', ']']).parse().ok();
            let at = text.parse().ok().or_else(|| Some(SocketAddr::new(alone()?, port)));
            at.filter(|it: &SocketAddr| it.port() > 0).map(Listen::At)
        })
    }

    /// Ranges of addresses, with commas between them.
    pub(super) fn ranges(&self) -> Read<Vec<IpNetwork>> {
        self.read_text("a range of addresses, or one of each family, like 10.244.0.0/16", |text| {
            let range = |it: &str| it.trim().parse().ok().filter(|_| it.contains('/'));
            text.split(',').map(range).collect()
        })
    }

    /// A list of addresses that have node ports.
    pub(super) fn addresses(&self) -> Read<Vec<Addresses>> {
        let all = self.read("a list", Value::as_array)?.filter(|it| !it.is_empty());
        let one = |(place, value): (usize, &Value)| {
            let read = value.as_str().and_then(|it| it.parse().ok());
            let wanted = "primary, localhost, all, or a range of addresses";
            read.ok_or_else(|| problem(&format!("{}[{place}]", self.path), value, wanted))
        };
        all.map(|it| it.iter().enumerate().map(one).collect()).transpose()
    }
}

fn problem(path: &str, value: &Value, wanted: &'static str) -> Problem {
    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Problem { field: path.to_owned(), value, wanted }
}

/// Whether it is what Go has where nothing is said.
pub(super) fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => matches!(text.as_str(), "" | "0" | "0s"),
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.values().all(says_nothing),
    }
}
