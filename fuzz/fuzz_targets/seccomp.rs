//! Seccomp profiles: what compiles is a program that the kernel's own checks would take, and it
//! comes to an end for every call.
#![no_main]

use bulkhead_runtime::seccomp::{CompileOptions, compile, compile_oci};
use bulkhead_runtime::{Capabilities, Seccomp};
use bulkhead_types::oci;
use bulkhead_sys::seccomp::Instruction;
use libfuzzer_sys::fuzz_target;

/// `BPF_MAXINSNS` of linux/bpf_common.h.
const LONGEST: usize = 4096;

fuzz_target!(|input: (u64, &str)| {
    let (capabilities, text) = input;
    let profile = Seccomp::Profile(text.to_owned());
    if let Ok(Some(filter)) = compile(&profile, Capabilities(capabilities)) {
        check(&filter.instructions);
    }
    // the same text as `linux.seccomp` of a config.json
    let Ok(profile) = serde_json::from_str::<oci::Seccomp>(text) else { return };
    let options = CompileOptions { close_socketcall: capabilities & 1 == 0 };
    if let Ok(Some(filter)) = compile_oci(&profile, options) {
        check(&filter.instructions);
    }
});

/// What `seccomp_check_filter` and `bpf_check_classic` of the kernel ask of a program.
fn check(program: &[Instruction]) {
    assert!((1..=LONGEST).contains(&program.len()), "{} instructions", program.len());
    let class = |instruction: &Instruction| instruction.code & 0x07;
    for (at, instruction) in program.iter().enumerate() {
        match class(instruction) {
            // BPF_LD | BPF_W | BPF_ABS: aligned, within struct seccomp_data
            0 => {
                assert_eq!(instruction.code, 0x20, "load at {at}");
                assert!(instruction.k.is_multiple_of(4) && instruction.k < 64, "load at {at}");
            }
            // BPF_ALU
            4 => assert!(matches!(instruction.code & 0xf0, 0x40..=0xa0 | 0x00..=0x20), "at {at}"),
            // BPF_JMP: forward, and within the program
            5 => {
                let farthest = match instruction.code {
                    0x05 => instruction.k as usize,
                    _ => usize::from(instruction.jump_true.max(instruction.jump_false)),
                };
                assert!(at + 1 + farthest < program.len(), "jump at {at} leaves the program");
            }
            6 => {}
            other => panic!("instruction class {other} at {at}"),
        }
    }
    assert_eq!(program.last().map(class), Some(6), "the last instruction is no return");
}
