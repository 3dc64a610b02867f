//! Which of iptables' two kinds of tables a node uses. Both at once enforce nothing well: rules of
//! one are not seen by who looks at the other.

use runner::{Output, Program, Runner};

/// What the kubelet leaves in table mangle, for others to find the tables that it uses (KEP-3178);
/// older ones leave the second.
const HINTS: [&str; 2] = [":KUBE-IPTABLES-HINT ", ":KUBE-KUBELET-CANARY "];
/// Only programs that read are run.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// The suffix of the programs' names: `-nft` or `-legacy` where the kubelet hints at either, else
/// empty: what the node calls iptables. `legacy_tables` is `/proc/net/ip_tables_names`, the old
/// tables that there are; without one of theirs, the old programs are not asked, as asking makes
/// the kernel make it.
pub fn variant(runner: &mut impl Runner, legacy_tables: &str) -> &'static str {
    if has_hint(&saved_mangle(runner, "iptables-nft-save")) {
        return "-nft";
    }
    let has_mangle = legacy_tables.lines().any(|table| table == "mangle");
    if has_mangle && has_hint(&saved_mangle(runner, "iptables-legacy-save")) {
        return "-legacy";
    }
    ""
}

/// Empty where the program is not there, or fails: then it is not what others use.
fn saved_mangle(runner: &mut impl Runner, file: &str) -> String {
    let program = Program {
        file: file.into(),
        args: &["-t", "mangle"],
        timeout: Some(TIMEOUT),
        ..Program::default()
    };
    match runner.run(&program) {
        Ok(Output { status, stdout, .. }) if status.success() => {
            String::from_utf8_lossy(&stdout).into_owned()
        }
        _ => String::new(),
    }
}

fn has_hint(saved: &str) -> bool {
    saved.lines().any(|line| HINTS.iter().any(|hint| line.starts_with(hint)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    struct Node {
        nft: &'static str,
        legacy: &'static str,
        asked: usize,
    }

    impl Runner for Node {
        fn run(&mut self, program: &Program<'_>) -> Result<Output, runner::Error> {
            let file = program.file.display().to_string();
            let stdout = if file.contains("nft") { self.nft } else { self.legacy };
            self.asked += 1;
            let status = ExitStatus::from_raw(0);
            Ok(Output { process_id: 1, status, stdout: stdout.into(), stderr: Vec::new() })
        }
    }

    #[test]
    fn the_kubelet_tells_and_the_old_tables_are_not_made_by_asking() {
        let hint = "*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n";
        let other = "*mangle\n:KUBE-IPTABLES-HINT-NOT - [0:0]\n-A X -j Y\nCOMMIT\n";
        for (nft, legacy, tables, expected, asked) in [
            (hint, "", "mangle\n", "-nft", 1),
            ("*mangle\n:KUBE-KUBELET-CANARY - [0:0]\n", hint, "mangle\n", "-nft", 1),
            (other, hint, "nat\nmangle\n", "-legacy", 2),
            (other, hint, "nat\n", "", 1),
            ("", hint, "", "", 1),
            ("", other, "mangle\n", "", 2),
        ] {
            let mut node = Node { nft, legacy, asked: 0 };
            assert_eq!(variant(&mut node, tables), expected, "{nft:?} {legacy:?} {tables:?}");
            assert_eq!(node.asked, asked);
        }
    }
}
