//! Where a range set's round robin goes on.

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::FileExt;

use nix::fcntl::OFlag;

use super::Directory;
use crate::Error;
use crate::lease::last_reserved_file;

/// Longer than any address.
const TEXT_BYTES: usize = 64;

/// The file that remembers the last address handed out of a range set. Its content is a hint: what
/// is missing, empty or wrong makes the walk begin at the set's start, as in the reference.
#[derive(Debug)]
pub(crate) struct LastReserved {
    name: String,
    file: Option<File>,
    length: usize,
    address: Option<IpAddr>,
}

impl LastReserved {
    /// Reads the file of range set `set`.
    ///
    /// # Errors
    /// It exists and cannot be opened or read.
    pub(crate) fn read(directory: &Directory, set: usize) -> Result<Self, Error> {
        let name = last_reserved_file(set);
        let failed = || Error::io("read", directory.path().join(&name));
        let file = match directory.file(&name, OFlag::O_RDWR, 0) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed()(error)),
        };
        let mut buffer = [0; TEXT_BYTES];
        let length = match &file {
            Some(file) => (&mut &*file).read(&mut buffer).map_err(failed())?,
            None => 0,
        };
        let text = buffer.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok());
        let address = text.and_then(cni::parse_address);
        Ok(Self { name, file, length, address })
    }

    /// The address.
    #[must_use]
    pub(crate) const fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Remembers `address`.
    ///
    /// An existing file is overwritten where it is and shortened afterwards: so a full disk cannot
    /// empty it, because nothing has to be found room for.
    ///
    /// # Errors
    /// The file cannot be created or written.
    pub(crate) fn write(self, directory: &Directory, address: IpAddr) -> Result<(), Error> {
        let failed = || Error::io("write", directory.path().join(&self.name));
        let text = address.to_string();
        match &self.file {
            Some(file) => {
                file.write_all_at(text.as_bytes(), 0).map_err(failed())?;
                if self.length > text.len() {
                    file.set_len(text.len() as u64).map_err(failed())?;
                }
            }
            None => {
                let flags = OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_WRONLY;
                let file = directory.file(&self.name, flags, 0o600).map_err(failed())?;
                if let Err(error) = file.write_all_at(text.as_bytes(), 0) {
                    // Best effort: an empty file is harmless.
                    let _ = directory.remove(&self.name);
                    return Err(failed()(error));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_the_bare_text_of_the_last_address() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open(folder.path()).unwrap().unwrap();
        let path = folder.path().join("last_reserved_ip.3");
        for text in ["10.0.0.9", "10.0.0.100", "10.0.0.2", "fd00::2"] {
            let address: IpAddr = text.parse().unwrap();
            LastReserved::read(&directory, 3).unwrap().write(&directory, address).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            assert_eq!(LastReserved::read(&directory, 3).unwrap().address(), Some(address));
        }
        for junk in ["", "x", "10.0.0.1\n", &"9".repeat(500)] {
            std::fs::write(&path, junk).unwrap();
            let last = LastReserved::read(&directory, 3).unwrap();
            assert_eq!(last.address(), None, "{junk:?}");
        }
        // Longer than what was read of it: the rest must go too.
        let address: IpAddr = "10.0.0.7".parse().unwrap();
        LastReserved::read(&directory, 3).unwrap().write(&directory, address).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "10.0.0.7");
    }
}
