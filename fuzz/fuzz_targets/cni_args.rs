//! Any text is parsed or refused, and a pair that is kept was in the text.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(args) = cni::args::Args::parse(text, &["IP", "MAC"]) {
        for key in ["IP", "MAC"] {
            if let Some(value) = args.get(key) {
                assert!(text.contains(&format!("{key}={value}")));
            }
        }
    }
});
