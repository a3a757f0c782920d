//! The warden's protocol, both ways: what decodes is encoded and decoded again without a
//! difference, and a container that is asked for compiles to a plan or to an error.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|packet: &[u8]| {
    bulkhead_warden::fuzzing::request(packet);
    bulkhead_warden::fuzzing::message(packet);
});
