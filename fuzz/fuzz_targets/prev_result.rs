//! Any document is a result or refused; a result survives its own version.
#![no_main]

use cni::{AddResult, Version};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(document) = serde_json::from_slice(bytes) else { return };
    for version in Version::ALL {
        let Ok(result) = AddResult::from_prev_result(&document, version) else { continue };
        let Ok(printed) = result.to_json(version) else { continue };
        let again = AddResult::from_prev_result(&printed, version).expect("what we print, we read");
        assert_eq!(again.to_json(version).expect("printed before"), printed);
    }
});
