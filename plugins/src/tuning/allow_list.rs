//! The node's list of the kernel parameters that configurations may set.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use regex_lite::Regex;

use super::conf::Sysctl;
use crate::error::Error;

/// One regular expression a line; whatever it matches a part of is allowed.
const FILE: &str = "/etc/cni/tuning/allowlist.conf";
/// No list is longer.
const SIZE_LIMIT: u64 = 1 << 20;

/// Refuses parameters that the node's list does not allow. Where there is no list, all are.
pub(super) fn check(sysctls: &[Sysctl]) -> Result<(), Error> {
    if sysctls.is_empty() {
        return Ok(());
    }
    match read(Path::new(FILE))? {
        Some(text) => check_by(&text, sysctls),
        None => Ok(()),
    }
}

fn read(file: &Path) -> Result<Option<String>, Error> {
    let mut text = String::new();
    let opened = File::open(file).and_then(|file| file.take(SIZE_LIMIT).read_to_string(&mut text));
    match opened {
        Ok(_) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { what: "read".into(), path: file.into(), source }),
    }
}

fn check_by(list: &str, sysctls: &[Sysctl]) -> Result<(), Error> {
    let lines: Vec<&str> = list.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut allowed = Vec::new();
    for line in &lines {
        let pattern = Regex::new(line).map_err(|error| {
            Error::Config(format!("{FILE}: {line:?} is no regular expression: {error}"))
        })?;
        allowed.push(pattern);
    }
    let refused = |it: &&Sysctl| !allowed.iter().any(|pattern| pattern.is_match(&it.key));
    match sysctls.iter().find(refused) {
        None => Ok(()),
        Some(Sysctl { key, .. }) => Err(Error::Config(format!(
            "sysctl.{key}: this node does not allow it, only what these match: {} ({FILE})",
            lines.join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(list: &str, key: &str) -> Option<String> {
        let sysctl = Sysctl { key: key.into(), value: "1".into() };
        check_by(list, &[sysctl]).err().map(|error| error.to_string())
    }

    #[test]
    fn a_line_allows_what_it_matches_a_part_of() {
        let list = "^net\\.core\\.somaxconn$\n\n  tcp_.*  \n";
        for allowed in ["net.core.somaxconn", "net.ipv4.tcp_syncookies"] {
            assert_eq!(told(list, allowed), None, "{allowed}");
        }
        for refused in ["net.core.somaxconn2", "net.ipv4.ip_forward"] {
            let text = told(list, refused).unwrap();
            assert!(text.contains(&format!("sysctl.{refused}")) && text.contains("tcp_"), "{text}");
        }
        assert!(told("", "net.core.somaxconn").is_some());
    }

    #[test]
    fn a_line_that_is_no_expression_is_told() {
        assert!(told("net\n(", "net.core.somaxconn").unwrap().contains("\"(\" is no regular"));
    }

    #[test]
    fn a_missing_list_is_no_list_and_an_unreadable_one_an_error() {
        assert_eq!(read(Path::new("/nowhere/allowlist.conf")).unwrap(), None);
        assert!(matches!(read(Path::new("/proc")), Err(Error::File { .. })));
    }
}
