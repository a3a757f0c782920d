//! The query of `POST /build`: understood, or refused by one sentence.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Err(sentence) = bulkhead_docker_api::fuzzing::build_query(text) {
        assert!(!sentence.is_empty());
        // It goes to a terminal.
        assert!(!sentence.contains('\u{1b}'), "{sentence:?}");
    }
});
