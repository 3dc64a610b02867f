//! The variables of a call.

use std::ffi::{CStr, c_char};

/// What the call is about.
#[derive(Default)]
pub(crate) struct Environment {
    /// Which plugin's work.
    pub(crate) mode: &'static str,
    /// `ADD` or `DEL`.
    pub(crate) command: &'static str,
    /// Container id.
    pub(crate) container: &'static str,
    /// Name of the container's interface.
    pub(crate) ifname: &'static str,
    /// Path of the container's namespace.
    pub(crate) netns: &'static str,
    /// Directory of the leases.
    pub(crate) data_dir: &'static str,
}

impl Environment {
    /// Picks what is needed out of the process's environment.
    ///
    /// # Safety
    /// `variables` is the environment that the C library gave to `main`, and nobody changes it.
    #[expect(unsafe_code, reason = "C strings behind a C array")]
    pub(crate) unsafe fn read(mut variables: *const *const c_char) -> Self {
        let mut environment = Self::default();
        loop {
            // SAFETY: the array ends with a null pointer, behind which the loop never looks, and
            // its strings live as long as the process.
            let variable = unsafe {
                let variable = *variables;
                if variable.is_null() {
                    return environment;
                }
                variables = variables.add(1);
                CStr::from_ptr(variable)
            };
            if let Some((name, value)) =
                variable.to_str().ok().and_then(|variable| variable.split_once('='))
            {
                environment.set(name, value);
            }
        }
    }

    fn set(&mut self, name: &str, value: &'static str) {
        match name {
            "FLOOR_MODE" => self.mode = value,
            "FLOOR_DATA_DIR" => self.data_dir = value,
            "CNI_COMMAND" => self.command = value,
            "CNI_CONTAINERID" => self.container = value,
            "CNI_IFNAME" => self.ifname = value,
            "CNI_NETNS" => self.netns = value,
            _ => {}
        }
    }
}
