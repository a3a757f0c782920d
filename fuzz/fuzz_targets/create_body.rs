//! The body of `POST /containers/create`: understood, or refused by one sentence.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if let Some(Err(sentence)) = bulkhead_docker_api::fuzzing::create_body(body) {
        assert!(!sentence.is_empty());
        // It goes to a terminal.
        assert!(!sentence.contains('\u{1b}'), "{sentence:?}");
    }
});
