//! A kernel's modules, and what each needs: pure.

use std::collections::BTreeMap;

/// The modules of a kernel, as `depmod` lists them.
#[derive(Debug, Default)]
pub(crate) struct Modules<'a> {
    /// By name: its file, and those of all that it needs, which have to be there first; the last before
    /// all others.
    files: BTreeMap<String, (&'a str, Vec<&'a str>)>,
    built_in: Vec<String>,
}

impl<'a> Modules<'a> {
    /// Reads `modules.dep` and `modules.builtin`.
    pub(crate) fn read(dependencies: &'a str, built_in: &str) -> Self {
        let lines = dependencies.lines().filter_map(|line| line.split_once(':'));
        let files = lines.map(|(file, needed)| {
            (name_of(file).to_owned(), (file, needed.split_whitespace().collect()))
        });
        Self { files: files.collect(), built_in: built_in.lines().map(name_of).collect() }
    }

    /// Whether the kernel itself has it.
    pub(crate) fn is_built_in(&self, module: &str) -> bool {
        self.built_in.iter().any(|it| it == module)
    }

    /// The files of these modules, and of all that they need, in the order in which they can be loaded.
    /// What is built in needs no file.
    ///
    /// # Errors
    /// The name of a module that is not there.
    pub(crate) fn in_order(&self, wanted: &[&str]) -> Result<Vec<&'a str>, String> {
        let mut order = Vec::new();
        for module in wanted.iter().filter(|it| !self.is_built_in(it)) {
            let (file, needed) = self.files.get(*module).ok_or_else(|| (*module).to_owned())?;
            for file in needed.iter().rev().chain([file]) {
                if !order.contains(file) {
                    order.push(*file);
                }
            }
        }
        Ok(order)
    }

    /// The files of all modules but these, and but those that need one of them.
    pub(crate) fn without(&self, modules: &[&str]) -> Vec<&'a str> {
        let is_left_out = |file: &&str| modules.contains(&name_of(file).as_str());
        let files = self.files.values();
        let kept = files.filter(|(file, needed)| !needed.iter().chain([file]).any(is_left_out));
        kept.map(|(file, _)| *file).collect()
    }
}

/// A module's name, of its file: the kernel's, which has no dashes.
fn name_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or_default();
    name.split('.').next().unwrap_or_default().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "\
kernel/net/netfilter/x_tables.ko:
kernel/net/ipv4/netfilter/ip_tables.ko: kernel/net/netfilter/x_tables.ko
kernel/net/ipv4/netfilter/iptable_nat.ko: kernel/net/ipv4/netfilter/ip_tables.ko kernel/net/netfilter/x_tables.ko
kernel/net/netfilter/nf-tables.ko: kernel/lib/libcrc32c.ko
kernel/lib/libcrc32c.ko:
";
    const BUILT_IN: &str = "kernel/drivers/virtio/virtio-pci.ko\n";

    fn modules() -> Modules<'static> {
        Modules::read(DEPENDENCIES, BUILT_IN)
    }

    #[test]
    fn what_a_module_needs_comes_before_it_and_once() {
        let order = modules().in_order(&["iptable_nat", "virtio_pci", "ip_tables", "nf_tables"]);
        let names: Vec<_> = order.unwrap().into_iter().map(name_of).collect();
        assert_eq!(names, ["x_tables", "ip_tables", "iptable_nat", "libcrc32c", "nf_tables"]);
    }

    #[test]
    fn a_module_that_is_not_there_is_told() {
        assert_eq!(modules().in_order(&["nf_tables", "dummy"]), Err("dummy".to_owned()));
    }

    #[test]
    fn what_needs_a_module_that_is_left_out_is_left_out_too() {
        let kept: Vec<_> = modules().without(&["x_tables"]).into_iter().map(name_of).collect();
        assert_eq!(kept, ["libcrc32c", "nf_tables"]);
        assert_eq!(modules().without(&[]).len(), 5);
    }

    #[test]
    fn what_is_built_in_is_known() {
        assert!(modules().is_built_in("virtio_pci") && !modules().is_built_in("x_tables"));
    }
}
