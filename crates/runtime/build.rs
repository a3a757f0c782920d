//! Compiles Docker's default seccomp profile for the usual sets of capabilities, so that a start
//! finds the program ready. The modules of the compiler are the crate's own, included here as well.
#![allow(dead_code, reason = "the crate uses the rest of these modules")]
#![allow(clippy::disallowed_methods, reason = "cargo speaks to build scripts by the environment")]

use std::fmt::Write;
use std::path::Path;

#[path = "src/seccomp/docker.rs"]
mod docker;
#[path = "src/seccomp/outcome.rs"]
mod outcome;
#[path = "src/seccomp/profile.rs"]
mod profile;
#[path = "src/seccomp/program.rs"]
mod program;
#[path = "src/seccomp/table.rs"]
mod table;

/// As `bulkhead_sys::seccomp::Instruction`, which a build script would have to build first.
#[derive(Debug, Clone, Copy)]
struct Instruction {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    k: u32,
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/seccomp");
    // the target's, where NATIVE here is that of the machine that builds
    let machine = match std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() {
        Ok("aarch64") => table::Architecture::ON_AARCH64,
        _ => table::Architecture::ON_X86_64,
    };
    let none = docker::relevant(|_| false);
    // of Docker's 14 capabilities one makes a difference, and it is among Bulkhead's 12
    let usual = docker::relevant(|name| name == "SYS_CHROOT");
    let all = docker::relevant(|_| true);
    let mut text = "static PRECOMPILED: &[(u32, &[Instruction])] = &[\n".to_owned();
    let closed = docker::PACKETS_CLOSED;
    for capabilities in [usual | closed, none | closed, usual, none, all] {
        let program = program::assemble(&docker::profile(machine, capabilities), machine)
            .expect("the default profile is short enough");
        writeln!(text, "({capabilities}, &[").expect("strings grow");
        for Instruction { code, jump_true, jump_false, k } in program {
            let fields = format!("code:{code},jump_true:{jump_true},jump_false:{jump_false},k:{k}");
            writeln!(text, "Instruction{{{fields}}},").expect("strings grow");
        }
        text.push_str("]),\n");
    }
    text.push_str("];\n");
    let directory = std::env::var_os("OUT_DIR").expect("cargo says where");
    std::fs::write(Path::new(&directory).join("docker.rs"), text).expect("OUT_DIR can be written");
}
