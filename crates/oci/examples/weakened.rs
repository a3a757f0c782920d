//! `bulkhead oci` without the wall that `BULKHEAD_WEAK` names: the control of the tests of
//! `tests/tests/escapes`. Its feature does not compile in a release.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(bulkhead_oci::main("weakened", std::env::args_os().skip(1).collect()))
}
