//! What the program is built for: this machine's processor, with musl as its libc.
//!
//! The program is static with either libc. With glibc each exec of it asks the processor some 35
//! times what it can (CPUID, which a hypervisor traps), 0.3 ms on a virtual machine, and the runtime
//! is executed for every container; and glibc's name service would load the host's libraries into a
//! static program. Only where musl cannot be had it is glibc.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, ensure};

use crate::setup;

/// The target's name, installed if it was not.
pub fn name() -> Result<&'static str> {
    static NAME: OnceLock<String> = OnceLock::new();
    if let Some(name) = NAME.get() {
        return Ok(name);
    }
    let host = host()?;
    let musl = host.replace("-gnu", "-musl");
    let name = match install(&musl) {
        Ok(()) => musl,
        Err(cause) => {
            println!("building for {host}, whose programs start slower: {cause:#}");
            host
        }
    };
    Ok(NAME.get_or_init(|| name))
}

fn install(target: &str) -> Result<()> {
    if !is_installed(target)? {
        let said = Command::new("rustup")
            .args(["target", "add", target])
            .output()
            .with_context(|| format!("rustup, which could install {target}, does not run"))?;
        let text = String::from_utf8_lossy(&said.stderr);
        let reason = text.lines().last().unwrap_or_default();
        ensure!(said.status.success(), "`rustup target add {target}`: {reason}");
    }
    // for the few dependencies in C
    setup::packages(&[("/usr/bin/musl-gcc", "musl-tools")])
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

fn host() -> Result<String> {
    let rustc = Command::new("rustc").arg("-vV").output().context("run rustc")?;
    let text = String::from_utf8(rustc.stdout)?;
    let host = text
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc -vV names no host")?;
    Ok(host.to_owned())
}
