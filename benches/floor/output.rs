//! The result.

use nix::unistd::write;

use crate::environment::Environment;
use crate::lease::Leases;
use crate::system::{Failure, STDOUT};
use crate::text::Text;

/// An interface of the result.
pub(crate) struct Interface<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: [u8; 6],
    /// Empty for the host's.
    pub(crate) sandbox: &'a str,
}

/// Prints the result as a plugin does.
pub(crate) fn print(
    environment: &Environment,
    interfaces: &[Interface<'_>],
    leases: Option<&Leases>,
) -> Result<(), Failure> {
    let mut text = Text::of(&["{\n    \"cniVersion\": \"1.0.0\",\n    \"interfaces\": ["]);
    for (index, interface) in interfaces.iter().enumerate() {
        text.push(if index == 0 { "\n" } else { ",\n" });
        push_interface(&mut text, interface);
    }
    text.push("\n    ],\n    \"ips\": [");
    // Which interface the addresses belong to: the last.
    let index = interfaces.len().saturating_sub(1) as u32;
    if let Some(leases) = leases {
        push_ip(&mut text, &leases.v4_text(), ("/16", "10.88.0.1"), index);
        if let Some(v6) = leases.v6_text() {
            text.push(",");
            push_ip(&mut text, &v6, ("/64", "fd00:88::1"), index);
        }
        text.push("\n    ],\n    \"routes\": [\n        {\n            \"dst\": \"0.0.0.0/0\"");
        if environment.mode.ends_with("-dual") {
            text.push("\n        },\n        {\n            \"dst\": \"::/0\"");
        }
        text.push("\n        }");
    }
    text.push("\n    ],\n    \"dns\": {}\n}");
    write(STDOUT, text.as_str().as_bytes()).map_err(Failure::at("print"))?;
    Ok(())
}

fn push_interface(text: &mut Text, interface: &Interface<'_>) {
    text.push("        {\n            \"name\": \"");
    text.push(interface.name);
    text.push("\",\n            \"mac\": \"");
    text.push_mac(interface.mac);
    if !interface.sandbox.is_empty() {
        text.push("\",\n            \"sandbox\": \"");
        text.push(interface.sandbox);
    }
    text.push("\"\n        }");
}

fn push_ip(text: &mut Text, address: &Text, (length, gateway): (&str, &str), interface: u32) {
    text.push("\n        {\n            \"interface\": ");
    text.push_decimal(interface);
    text.push(",\n            \"address\": \"");
    text.push(address.as_str());
    text.push(length);
    text.push("\",\n            \"gateway\": \"");
    text.push(gateway);
    text.push("\"\n        }");
}
