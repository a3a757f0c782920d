//! What programs are built for: this machine's processor, with glibc or with musl as their libc.
//!
//! They are static with either. With glibc each exec asks the processor some 35 times what it can
//! (CPUID, which a hypervisor traps): 0.3 ms on a virtual machine, in the runtime's small program, whose
//! whole life is 3 ms. It is built for musl. The whole program gains as much at its start, and loses
//! it again to musl's allocator.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// With musl, which is installed if it is not; with glibc where it cannot be had.
pub fn musl() -> Result<String> {
    let host = host()?;
    let musl = host.replace("-gnu", "-musl");
    match install(&musl) {
        Ok(()) => Ok(musl),
        Err(cause) => {
            println!("building for {host}, which makes it slower: {cause:#}");
            Ok(host)
        }
    }
}

fn install(target: &str) -> Result<()> {
    if is_installed(target)? {
        return Ok(());
    }
    let said = Command::new("rustup")
        .args(["target", "add", target])
        .output()
        .with_context(|| format!("rustup, which could install {target}, does not run"))?;
    let text = String::from_utf8_lossy(&said.stderr);
    let reason = text.lines().last().unwrap_or_default();
    ensure!(said.status.success(), "`rustup target add {target}`: {reason}");
    Ok(())
}

fn is_installed(target: &str) -> Result<bool> {
    let said = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", target])
        .output()
        .context("run rustc")?;
    let directory = String::from_utf8(said.stdout)?;
    let files = std::fs::read_dir(Path::new(directory.trim()));
    Ok(said.status.success() && files.is_ok_and(|mut files| files.next().is_some()))
}

/// This machine's own.
pub fn host() -> Result<String> {
    let rustc = Command::new("rustc").arg("-vV").output().context("run rustc")?;
    let text = String::from_utf8(rustc.stdout)?;
    let host = text
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc -vV names no host")?;
    Ok(host.to_owned())
}
