//! A packet that a container, or a server that is asked for it, sends to the resolver of names.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| bulkhead_resolver::fuzzing::packet(bytes));
