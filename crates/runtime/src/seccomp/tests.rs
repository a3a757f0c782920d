use proptest::prelude::*;

use bulkhead_types::oci;

use super::interpreter::{Call as Made, run};
use super::profile::{Action, Comparison, Condition, ENOSYS, EPERM, Profile, Rule};
use super::table::{Architecture, Call, NATIVE};
use super::*;

mod default;
mod kernel;
mod libseccomp;
mod oci_profiles;
mod own_format;
mod programs;
mod reference;
mod samples;

const ALLOW: u32 = 0x7fff_0000;
const EPERM_VALUE: u32 = 0x0005_0000 | EPERM as u32;
const ENOSYS_VALUE: u32 = 0x0005_0000 | ENOSYS as u32;

fn number(architecture: Architecture, name: &str) -> u32 {
    let call = Call::named(name).unwrap();
    architecture.calls().iter().find(|(_, known)| *known == call).unwrap().0
}

fn made(architecture: Architecture, name: &str, arguments: [u64; 6]) -> Made {
    Made { audit: architecture.audit(), number: number(architecture, name), arguments }
}

fn answer(program: &[Instruction], call: Made) -> u32 {
    run(program, &call).unwrap().0
}

fn compiled(seccomp: &oci::Seccomp) -> Compiled {
    compile_oci(seccomp, CompileOptions::default()).unwrap().unwrap()
}

fn read(text: &str) -> oci::Seccomp {
    serde_json::from_str(text).unwrap()
}
