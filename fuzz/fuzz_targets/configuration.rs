//! Any bytes are a configuration, or have problems with a place.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for problem in podwire::check_configuration(bytes) {
        assert!(!problem.path.is_empty() && !problem.text.is_empty());
    }
    let _ = cni::serve::decode_conf(bytes);
});
