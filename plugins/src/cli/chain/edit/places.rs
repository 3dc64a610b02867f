//! Where the values of a JSON text are. The text has been parsed before: here it is only walked.

use std::ops::Range;

/// The value of the last key of that name in the text's object, which is the one that counts.
pub(super) fn value_of(text: &str, key: &str) -> Option<Range<usize>> {
    let open = text.find('{')?;
    let parts = elements(text, open);
    let mut pairs = parts.chunks_exact(2).filter_map(|pair| {
        let [name, value] = pair else { return None };
        let name: String = serde_json::from_str(text.get(name.clone())?).ok()?;
        (name == key).then(|| value.clone())
    });
    pairs.next_back()
}

/// The elements of the array, or the keys and values in turn of the object, whose bracket is at
/// `open`.
pub(super) fn elements(text: &str, open: usize) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = open + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b']' | b'}' => return found,
            b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' => at += 1,
            _ => {
                let end = end_of_value(bytes, at);
                found.push(at..end);
                at = end;
            }
        }
    }
    found
}

/// The place behind the value that begins at `start`: always further on.
fn end_of_value(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_string(bytes, at),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' if depth > 0 => {
                depth -= 1;
                at += 1;
            }
            b',' | b':' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => break,
            _ => at += 1,
        }
        // A string or a bracket ends by itself; a number or a word by what follows it.
        let is_whole = matches!(bytes.get(at.wrapping_sub(1)), Some(b'"' | b'}' | b']'));
        if depth == 0 && is_whole {
            break;
        }
    }
    at.max(start + 1)
}

fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}
