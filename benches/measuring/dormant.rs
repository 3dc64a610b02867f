//! Tables of nf_tables that sleep.

/// The command by which a table ("table ip x") sleeps, when the kernel calls none of its chains, or wakes.
#[must_use]
pub fn dormant(table: &str, is_asleep: bool) -> String {
    let flags = if is_asleep { "flags dormant;" } else { "" };
    format!("nft '{table} {{ {flags} }}'")
}
