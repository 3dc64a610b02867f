//! A kernel of a package, as `scripts/kernels` unpacked it, and the modules that a lane has of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use runner::Program;

use crate::archive::Archive;
use crate::built::succeed;
use crate::error::{Error, Result};
use crate::modules::Modules;
use crate::plan::{MODULES, PLAN, Plan};
use crate::table::Lane;

/// What the virtual machine needs before it sees the machine's files.
const FOR_THE_START: &[&str] = &["virtio_pci", "9pnet_virtio", "9p", "overlay"];

/// To list what modules need takes moments.
const BOUND: Duration = Duration::from_secs(60);

/// A kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    name: String,
    /// Its own name for itself.
    pub(crate) release: String,
    /// The kernel itself.
    pub(crate) image: PathBuf,
    modules: PathBuf,
    dependencies: String,
    built_in: String,
}

impl Kernel {
    /// The kernel in a folder.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn open(kernels: &Path, name: &str) -> Result<Self> {
        let folder = kernels.join(name);
        let none = |why: &str| Error::NoKernel { folder: folder.clone(), why: why.to_owned() };
        let image = folder.join("vmlinuz");
        if !image.is_file() {
            return Err(none("vmlinuz is missing"));
        }
        let all = folder.join("lib/modules");
        let mut releases = fs::read_dir(&all).map_err(Error::file("list", &all))?;
        let release = releases.next().transpose().map_err(Error::file("list", &all))?;
        let release = release.ok_or_else(|| none("it has no modules"))?.file_name();
        let modules = all.join(&release);
        let read = |file: &str| {
            let path = modules.join(file);
            fs::read_to_string(&path).map_err(Error::file("read", path))
        };
        let (dependencies, built_in) = (read("modules.dep")?, read("modules.builtin")?);
        let release = release.to_string_lossy().into_owned();
        Ok(Self { name: name.to_owned(), release, image, modules, dependencies, built_in })
    }

    /// Fills a folder with the modules that the lane has. They are the same files by other names.
    ///
    /// # Errors
    /// The kernel cannot do without what the lane is to be without, or a file cannot be linked.
    pub(crate) fn fill(&self, folder: &Path, lane: &Lane) -> Result<PathBuf> {
        let known = self.known();
        if let Some(module) = lane.without_modules.iter().find(|it| known.is_built_in(it)) {
            let (kernel, module) = (self.name.clone(), (*module).to_owned());
            return Err(Error::BuiltIn { kernel, module });
        }
        known.in_order(lane.loaded).map_err(|module| self.lacks(module))?;
        let target = folder.join("lib/modules").join(&self.release);
        for file in known.without(lane.without_modules) {
            link(&self.modules.join(file), &target.join(file))?;
        }
        for file in ["modules.builtin", "modules.order"] {
            link(&self.modules.join(file), &target.join(file))?;
        }
        let folder = folder.display().to_string();
        let args = ["-b", &folder, &self.release];
        let timeout = Some(BOUND);
        succeed(&Program { file: "depmod".into(), args: &args, timeout, ..Program::default() })?;
        Ok(target)
    }

    /// What the virtual machine starts from: this program, the modules that it needs first, and its
    /// plan.
    ///
    /// # Errors
    /// Something of it cannot be read.
    pub(crate) fn archive(&self, plan: &Plan) -> Result<Vec<u8>> {
        let read = |path: &Path| fs::read(path).map_err(Error::file("read", path));
        let mut archive = Archive::default();
        archive.file("init", &read("/proc/self/exe".as_ref())?);
        let plan = serde_json::to_vec(plan);
        let unreadable = |source| Error::Unreadable { what: PLAN.to_owned(), source };
        archive.file(PLAN, &plan.map_err(unreadable)?);
        archive.folder("dev");
        archive.folder(MODULES);
        let files = self.known().in_order(FOR_THE_START).map_err(|module| self.lacks(module))?;
        for (number, file) in files.into_iter().enumerate() {
            archive.file(&format!("{MODULES}/{number:02}"), &read(&self.modules.join(file))?);
        }
        Ok(archive.finish())
    }

    fn known(&self) -> Modules<'_> {
        Modules::read(&self.dependencies, &self.built_in)
    }

    fn lacks(&self, module: String) -> Error {
        Error::NoModule { kernel: self.name.clone(), module }
    }
}

fn link(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(Error::file("make the folder", folder))?;
    }
    fs::hard_link(from, to).map_err(Error::file("link", to))
}
