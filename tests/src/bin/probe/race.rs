//! A process that lies in wait for others of its pid namespace: those of the engine, on their way
//! to become a container's, must not let it at their program or their memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::files::list;
use crate::{io_outcome, say};

/// Whether memory is that of Debian's busybox, a static program that is always at one address.
///
/// In the midst of an execve(2) the memory is the new program's already, and nothing is in it yet;
/// so what is not mapped is looked at again.
fn holds_busybox(memory: &File) -> bool {
    const AT: u64 = 0x40_0000;
    let (mut there, mut file) = ([0; 512], [0; 512]);
    let found = (0..10_000).any(|_| memory.read_exact_at(&mut there, AT).is_ok());
    found
        && File::open("/bin/busybox").is_ok_and(|it| it.read_exact_at(&mut file, 0).is_ok())
        && there == file
}

/// What runs in a process, or why that cannot be told.
fn program(exe: &str) -> String {
    match std::fs::read_link(exe) {
        Ok(link) => link.display().to_string(),
        Err(error) => io_outcome::<()>(Err(error)),
    }
}

/// Goes on until `/tmp/stop` is there; tells each kind of process seen, and how often.
pub fn run() -> Result<(), String> {
    let mut seen: BTreeMap<(String, String, String), usize> = BTreeMap::new();
    let own = std::process::id().to_string();
    println!("watching");
    while !Path::new("/tmp/stop").exists() {
        for pid in list("/proc").iter().filter(|name| name.parse::<u32>().is_ok()) {
            if *pid == own {
                continue;
            }
            let exe = format!("/proc/{pid}/exe");
            let link = program(&exe);
            let write = io_outcome(std::fs::OpenOptions::new().write(true).open(&exe));
            let memory = match File::open(format!("/proc/{pid}/mem")) {
                Ok(memory) if holds_busybox(&memory) => "busybox".to_owned(),
                other => io_outcome(other),
            };
            // it has become a program of the container's meanwhile, which may have ended even before
            // its memory was looked into: whose it was cannot be told
            if program(&exe) != link {
                continue;
            }
            // neither says anything of the engine's program: the kernel runs it, and nobody writes
            let write = if write == "ETXTBSY" { "EACCES".to_owned() } else { write };
            *seen.entry((link, write, memory)).or_default() += 1;
        }
    }
    for ((link, write, memory), times) in seen {
        say("seen", format!("{link} | {write} | {memory} | {times}"));
    }
    Ok(())
}
