//! What can be set of an interface.

use cni::decode::{Fields, Problems};
use netlink::{HardwareAddress, Link, Request};
use serde_json::{Map, Value, json};

/// Settings of an interface; `None` leaves one as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Hardware address.
    pub(crate) mac: Option<HardwareAddress>,
    /// Promiscuous mode.
    pub(crate) promiscuous: Option<bool>,
    /// Bytes.
    pub(crate) mtu: Option<u32>,
    /// All multicast packets are received.
    pub(crate) all_multicast: Option<bool>,
    /// Length of the transmit queue, packets.
    pub(crate) tx_queue_length: Option<u32>,
}

impl Settings {
    /// Whether nothing is to be set.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What the link has of those settings that `asked` sets.
    pub(super) fn of(link: &Link, asked: &Self) -> Self {
        Self {
            mac: asked.mac.and(link.mac),
            promiscuous: asked.promiscuous.map(|_| link.is_promiscuous),
            mtu: asked.mtu.map(|_| link.mtu),
            all_multicast: asked.all_multicast.map(|_| link.is_all_multicast),
            tx_queue_length: asked.tx_queue_length.map(|_| link.tx_queue_length),
        }
    }

    /// These, and where there are none `other`.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            mac: self.mac.or(other.mac),
            promiscuous: self.promiscuous.or(other.promiscuous),
            mtu: self.mtu.or(other.mtu),
            all_multicast: self.all_multicast.or(other.all_multicast),
            tx_queue_length: self.tx_queue_length.or(other.tx_queue_length),
        }
    }

    /// What sets them, one request for each, so that a refusal names the setting.
    pub(super) fn requests(&self, index: u32, name: &str) -> Vec<Request> {
        let Self { mac, promiscuous, mtu, all_multicast, tx_queue_length } = *self;
        [
            mtu.map(|mtu| Request::set_mtu(index, name, mtu)),
            mac.map(|mac| Request::set_mac(index, name, mac)),
            promiscuous.map(|on| Request::set_promiscuous(index, name, on)),
            all_multicast.map(|on| Request::set_all_multicast(index, name, on)),
            tx_queue_length.map(|length| Request::set_tx_queue_length(index, name, length)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The first of them that the link has otherwise, in words.
    pub(super) fn difference(&self, link: &Link) -> Option<String> {
        let found = Self::of(link, self);
        let text =
            |mac: Option<HardwareAddress>| mac.map(|mac| mac.to_string()).unwrap_or_default();
        let on_off = |on: Option<bool>| if on == Some(true) { "on" } else { "off" }.to_owned();
        let number = |number: Option<u32>| number.unwrap_or_default().to_string();
        let compared = [
            ("MAC address", self.mac != found.mac, text(found.mac), text(self.mac)),
            (
                "promiscuous mode",
                self.promiscuous != found.promiscuous,
                on_off(found.promiscuous),
                on_off(self.promiscuous),
            ),
            ("MTU", self.mtu != found.mtu, number(found.mtu), number(self.mtu)),
            (
                "reception of all multicast",
                self.all_multicast != found.all_multicast,
                on_off(found.all_multicast),
                on_off(self.all_multicast),
            ),
            (
                "transmit queue length",
                self.tx_queue_length != found.tx_queue_length,
                number(found.tx_queue_length),
                number(self.tx_queue_length),
            ),
        ];
        let (what, _, found, wanted) = compared.into_iter().find(|(_, differs, ..)| *differs)?;
        Some(format!("{what} is {found}, ADD set {wanted}"))
    }

    /// As the reference plugin keeps them in its files.
    pub(super) fn to_json(self) -> Map<String, Value> {
        let members = [
            ("mac", self.mac.map(|mac| json!(mac.to_string()))),
            ("promisc", self.promiscuous.map(Value::from)),
            ("mtu", self.mtu.map(Value::from)),
            ("allmulti", self.all_multicast.map(Value::from)),
            ("txQLen", self.tx_queue_length.map(Value::from)),
        ];
        let given = members.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        given.collect()
    }

    /// The opposite of [`Self::to_json`]; `None` when a value is none of its kind.
    pub(super) fn from_json(members: &Map<String, Value>) -> Option<Self> {
        let problems = Problems::default();
        let fields = Fields::root(members, &problems);
        let mac = fields.string("mac").filter(|text| !text.is_empty());
        let number = |key| fields.integer(key).map(u32::try_from).transpose().ok();
        let settings = Self {
            mac: mac.and_then(HardwareAddress::parse),
            promiscuous: fields.bool("promisc"),
            mtu: number("mtu")?.filter(|mtu| *mtu != 0),
            all_multicast: fields.bool("allmulti"),
            tx_queue_length: number("txQLen")?,
        };
        drop(fields);
        let is_read = mac.is_some() == settings.mac.is_some() && problems.into_result().is_ok();
        is_read.then_some(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_settings() -> impl Strategy<Value = Settings> {
        let mac = proptest::option::of(any::<[u8; 6]>().prop_map(HardwareAddress));
        let (flag, number) =
            (proptest::option::of(any::<bool>()), proptest::option::of(1..=u32::MAX));
        (mac, flag.clone(), number.clone(), flag, number).prop_map(
            |(mac, promiscuous, mtu, all_multicast, tx_queue_length)| Settings {
                mac,
                promiscuous,
                mtu,
                all_multicast,
                tx_queue_length,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_kept_is_read_again(settings in any_settings()) {
            prop_assert_eq!(Settings::from_json(&settings.to_json()), Some(settings));
        }

        #[test]
        fn the_first_of_two_wins(first in any_settings(), second in any_settings()) {
            let both = first.or(second);
            prop_assert_eq!(both.or(first), both);
            prop_assert_eq!(first.mtu.or(second.mtu), both.mtu);
            prop_assert_eq!(both.requests(1, "x").is_empty(), first.is_empty() && second.is_empty());
        }
    }

    #[test]
    fn the_reference_plugins_files_are_read() {
        let text = r#"{"mac": "de:90:5c:54:a5:14", "promisc": false, "mtu": 1500, "txQLen": 0}"#;
        let settings = Settings::from_json(&serde_json::from_str(text).unwrap()).unwrap();
        let expected = Settings {
            mac: Some(HardwareAddress([0xde, 0x90, 0x5c, 0x54, 0xa5, 0x14])),
            promiscuous: Some(false),
            mtu: Some(1500),
            all_multicast: None,
            tx_queue_length: Some(0),
        };
        assert_eq!(settings, expected);
        for wrong in
            [r#"{"mac": "x"}"#, r#"{"mtu": "1500"}"#, r#"{"mtu": -1}"#, r#"{"promisc": 1}"#]
        {
            assert_eq!(Settings::from_json(&serde_json::from_str(wrong).unwrap()), None, "{wrong}");
        }
    }
}
