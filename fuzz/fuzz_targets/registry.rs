//! A request of the registry's: the path in the first line, a manifest in the rest.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let at = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (path, rest) = (&input[..at], input.get(at + 1..).unwrap_or_default());
    if let Ok(path) = std::str::from_utf8(path)
        && let Some((name, directory)) = bulkhead_registry::fuzzing::path(path)
    {
        // A repository is one directory below the registry's, and no two are the same one.
        assert!(!directory.contains('/') && !directory.starts_with('.'), "{directory:?}");
        assert_eq!(directory.replace('%', "/"), name);
    }
    for announced in ["", "application/vnd.oci.image.index.v1+json"] {
        match bulkhead_registry::fuzzing::manifest(rest, announced) {
            Ok(kind) => assert!(kind.starts_with("application/vnd."), "{kind:?}"),
            Err(sentence) => assert!(!sentence.is_empty()),
        }
    }
});
