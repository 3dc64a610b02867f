//! `CNI_ARGS`: `KEY=VALUE` pairs joined by `;`.

use crate::Error;

/// The pairs of one call, with the keys that a plugin does not know already refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Args(Vec<(String, String)>);

impl Args {
    /// Reads `text` for a plugin that understands the keys `known`.
    ///
    /// Keys are compared exactly. Unknown keys are an error unless `IgnoreUnknown` is `1` or
    /// `true`; a malformed pair always is (reference behaviour).
    ///
    /// # Errors
    /// [`Error::Args`].
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, Error> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let mut pairs = Vec::new();
        for pair in text.split(';') {
            match pair.split('=').collect::<Vec<_>>().as_slice() {
                [key, value] => pairs.push(((*key).to_owned(), (*value).to_owned())),
                _ => return Err(Error::Args(format!("invalid pair {pair:?}"))),
            }
        }
        let args = Self(pairs);
        if !args.ignores_unknown()? {
            let is_unknown = |(key, _): &&(String, String)| {
                key != "IgnoreUnknown" && !known.contains(&key.as_str())
            };
            let unknown: Vec<String> =
                args.0.iter().filter(is_unknown).map(|(k, v)| format!("\"{k}={v}\"")).collect();
            if !unknown.is_empty() {
                let text = format!(
                    "unknown args [{}] (IgnoreUnknown=1 lets them pass)",
                    unknown.join(" ")
                );
                return Err(Error::Args(text));
            }
        }
        Ok(args)
    }

    fn ignores_unknown(&self) -> Result<bool, Error> {
        match self.get("IgnoreUnknown").map(str::to_ascii_lowercase).as_deref() {
            None | Some("0" | "false") => Ok(false),
            Some("1" | "true") => Ok(true),
            Some(other) => {
                Err(Error::Args(format!("IgnoreUnknown={other}: expected 1, true, 0 or false")))
            }
        }
    }

    /// The value of `key`; of several the last.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().rfind(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn unknown_keys_need_leave() {
        assert!(Args::parse("K8S_POD_NAME=x", &["IP"]).is_err());
        let args = Args::parse("IgnoreUnknown=TRUE;K8S_POD_NAME=x;IP=10.0.0.1", &["IP"]).unwrap();
        assert_eq!(args.get("IP"), Some("10.0.0.1"));
        assert_eq!(args.get("ip"), None);
    }

    #[test]
    fn malformed_pairs_are_refused_even_with_leave() {
        for text in ["IgnoreUnknown=1;FOO=a=b", "IgnoreUnknown=1;", "IgnoreUnknown=yes", "FOO"] {
            assert_eq!(Args::parse(text, &[]).unwrap_err().code(), 4, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in ".*") {
            let _ = Args::parse(&text, &["IP", "MAC"]);
        }

        #[test]
        fn known_pairs_are_kept(ip in "[0-9a-f.:]{0,20}", mac in "[0-9a-f:]{0,17}") {
            let args = Args::parse(&format!("IP={ip};MAC={mac}"), &["IP", "MAC"]).unwrap();
            prop_assert_eq!(args.get("IP"), Some(ip.as_str()));
            prop_assert_eq!(args.get("MAC"), Some(mac.as_str()));
        }
    }
}
