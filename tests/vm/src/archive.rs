//! An archive as the kernel unpacks it when it starts (cpio, "newc"): pure.

/// What a file's mode says of its kind.
const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;

/// An archive of files, which root owns.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    count: u32,
}

impl Archive {
    /// Adds a folder. What is in it comes after it.
    pub(crate) fn folder(&mut self, name: &str) {
        self.add(name, FOLDER | 0o755, &[]);
    }

    /// Adds a program, or any other file.
    pub(crate) fn file(&mut self, name: &str, content: &[u8]) {
        self.add(name, FILE | 0o755, content);
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.count += 1;
        // Number, mode, owner, group, links, time, size, four of devices, size of the name, no checksum.
        let fields = [self.count, mode, 0, 0, 1, 0, size(content), 0, 0, 0, 0];
        self.bytes.extend(b"070701");
        for field in fields.into_iter().chain([size(name.as_bytes()) + 1, 0]) {
            self.bytes.extend(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The format has 32 bits for it; what is too large gets a size that the kernel stumbles over.
fn size(content: &[u8]) -> u32 {
    u32::try_from(content.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_as_the_format_wants_it() {
        let mut archive = Archive::default();
        archive.folder("etc");
        archive.file("etc/name", b"podwire");
        let bytes = archive.finish();
        let text = String::from_utf8(bytes).unwrap();
        let head = |number: u32, mode: &str, size: u32, name: u32| {
            let zeros = "0".repeat(8);
            format!(
                "070701{number:08x}{mode}{zeros}{zeros}00000001{zeros}{size:08x}{}{name:08x}{zeros}",
                zeros.repeat(4)
            )
        };
        let folder = format!("{}etc\0\0\0", head(1, "000041ed", 0, 4));
        let file = format!("{}etc/name\0\0podwire\0", head(2, "000081ed", 7, 9));
        let end = format!("{}TRAILER!!!\0\0\0\0", head(3, "00000000", 0, 11));
        assert_eq!(text, format!("{folder}{file}{end}"));
    }
}
