//! The cluster query language: an expression has a value, and its negation the other one; or one sentence
//! says what is wrong.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    for value in [None, Some("7"), Some("t2.micro")] {
        match bulkhead_ecs::fuzzing::query(text, value) {
            Ok(holds) => {
                let negated = bulkhead_ecs::fuzzing::query(&format!("not ({text})"), value);
                // it may have been as deep as they may be
                assert!(negated.is_err() || negated == Ok(!holds), "{text:?}");
            }
            Err(sentence) => assert!(!sentence.is_empty()),
        }
    }
});
