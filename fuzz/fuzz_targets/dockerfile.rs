//! A Dockerfile: it is planned, or refused by a sentence that names its line; and as changes of a
//! commit it applies, or leaves a sentence.
#![no_main]

use bulkhead_types::image::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match bulkhead_builder::fuzzing::vertices(text) {
        Ok(vertices) => {
            assert!(!vertices.is_empty(), "a plan of nothing");
            for (at, vertex) in vertices.iter().enumerate() {
                for input in &vertex.inputs {
                    let before = vertices[..at].iter().any(|before| before.digest == *input);
                    assert!(before, "{} needs what does not come before it", vertex.name);
                }
            }
            let again = bulkhead_builder::fuzzing::vertices(text);
            assert_eq!(again.expect("it was planned"), vertices, "the same text, another plan");
        }
        Err(error) => {
            let sentence = error.to_string();
            assert!(sentence.starts_with("dockerfile parse error on line "), "{sentence}");
        }
    }
    let mut config = Config::default();
    if let Err(error) = bulkhead_builder::change(&mut config, text) {
        assert!(!error.to_string().is_empty());
    }
});
