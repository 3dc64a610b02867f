//! rtnetlink messages as bytes.

/// More than the longest batch.
const ROOM: usize = 1024;

const NLM_F_REQUEST: u16 = 1;
/// An acknowledgement is wanted.
pub(crate) const ACK: u16 = 4;
/// Create, and fail if it exists.
pub(crate) const CREATE_NEW: u16 = 0x600;
/// Create.
pub(crate) const CREATE: u16 = 0x400;
/// List everything.
pub(crate) const DUMP: u16 = 0x300;

/// Several messages for one system call.
pub(crate) struct Messages {
    bytes: [u8; ROOM],
    length: usize,
    /// Where the current message begins.
    start: usize,
    /// Sequence number of the current message.
    pub(crate) sequence: u32,
}

impl Messages {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; ROOM], length: 0, start: 0, sequence: 0 }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// Begins a message with its fixed part.
    pub(crate) fn begin(&mut self, kind: u16, flags: u16, fixed: &[u8]) {
        self.start = self.length;
        self.sequence += 1;
        self.put(&[0; 4]);
        self.put(&kind.to_ne_bytes());
        self.put(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.put(&self.sequence.to_ne_bytes());
        self.put(&[0; 4]);
        self.put(fixed);
        self.finish(self.start, 4);
    }

    /// Appends an attribute.
    pub(crate) fn attribute(&mut self, kind: u16, payload: &[u8]) {
        let nest = self.open_nest(kind);
        self.put(payload);
        self.close_nest(nest);
    }

    pub(crate) fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    /// Appends a name, which ends with a zero byte.
    pub(crate) fn name(&mut self, kind: u16, name: &str) {
        let nest = self.open_nest(kind);
        self.put(name.as_bytes());
        self.put(&[0]);
        self.close_nest(nest);
    }

    /// Begins an attribute that has attributes.
    pub(crate) fn open_nest(&mut self, kind: u16) -> usize {
        let start = self.length;
        self.put(&[0; 2]);
        self.put(&kind.to_ne_bytes());
        start
    }

    pub(crate) fn close_nest(&mut self, start: usize) {
        self.finish(start, 2);
        self.length = self.length.next_multiple_of(4);
        self.finish(self.start, 4);
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.length..self.length + bytes.len()) {
            room.copy_from_slice(bytes);
            self.length += bytes.len();
        }
    }

    /// Writes the length of what begins at `start` into its first `size` bytes.
    fn finish(&mut self, start: usize, size: usize) {
        let length = ((self.length - start) as u32).to_le_bytes();
        if let (Some(room), Some(length)) =
            (self.bytes.get_mut(start..start + size), length.get(..size))
        {
            room.copy_from_slice(length);
        }
    }
}
