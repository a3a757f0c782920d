//! What this machine needs and does not have: Debian packages, the AWS CLI, the program itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::Shell;
use crate::target;

/// The checkout's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the checkout").to_owned()
}

/// Where builds and downloads go.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Installs the Debian packages that are missing; (file that shows it is there, package).
pub fn packages(wanted: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(file, _)| !Path::new(file).exists())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let shell = Shell::default().with("DEBIAN_FRONTEND", "noninteractive");
    shell.run(&format!(
        "apt-get update -q && apt-get install -yq --no-install-recommends {}",
        missing.join(" ")
    ))?;
    Ok(())
}

/// What the walk-through needs from Debian.
pub const WALKTHROUGH: &[(&str, &str)] = &[
    ("/usr/bin/mmdebstrap", "mmdebstrap"),
    ("/usr/bin/curl", "curl"),
    ("/usr/bin/python3", "python3"),
    ("/usr/lib/python3/dist-packages/pip", "python3-pip"),
    ("/usr/share/doc/python3-venv", "python3-venv"),
    ("/usr/bin/cc", "gcc"),
    ("/usr/lib/x86_64-linux-gnu/libc.a", "libc6-dev"),
];

/// Fails early, with the reason, where nothing that follows could work.
pub fn require_root() -> Result<()> {
    let id = Command::new("id").arg("-u").output().context("run id")?;
    if id.stdout.trim_ascii() != b"0" {
        bail!("this sets up network and cgroups: run it as root");
    }
    Ok(())
}

/// Builds the program and returns the directory it is in.
pub fn program(profile: &str) -> Result<PathBuf> {
    println!("\n\x1b[1m$ cargo build --package bulkhead --profile {profile}\x1b[0m");
    build("bulkhead", profile, &target::host()?)
}

/// Builds a package, with nothing on standard output.
pub fn build(package: &str, profile: &str, target: &str) -> Result<PathBuf> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let built = Command::new(cargo)
        .args(["build", "--package", package, "--profile", profile, "--target", target])
        .current_dir(root())
        .status()
        .context("run cargo")?;
    if !built.success() {
        bail!("{package} does not build");
    }
    let directory = if profile == "dev" { "debug" } else { profile };
    Ok(self::target().join(target).join(directory))
}

/// The AWS CLI in a virtual environment; returns its `bin` directory.
pub fn aws_cli() -> Result<PathBuf> {
    let directory = target().join("aws-cli");
    let bin = directory.join("bin");
    if !bin.join("aws").exists() {
        let python = if Path::new("/usr/share/doc/python3-venv").exists() {
            "/usr/bin/python3"
        } else {
            "python3"
        };
        Shell::default().run(&format!(
            "{python} -m venv {0} && {0}/bin/pip install --quiet --disable-pip-version-check awscli",
            directory.display()
        ))?;
    }
    Ok(bin)
}

/// The docker CLI: this machine's, else Debian's unpacked beside the build, without its daemon.
pub fn docker_cli() -> Result<PathBuf> {
    let found = Shell::default().ask("command -v docker")?;
    if found.success {
        return Ok(found.output.trim().into());
    }
    let directory = target().join("docker-cli");
    let docker = directory.join("usr/bin/docker");
    if !docker.exists() {
        std::fs::create_dir_all(&directory)?;
        Shell::default()
            .within(&directory)
            .run("apt-get update -q && apt-get download docker.io && dpkg -x docker.io_*.deb . && rm docker.io_*.deb")?;
    }
    Ok(docker)
}

/// The buildx plugin of Debian's unstable branch, unpacked beside the build: it is one static program.
pub fn docker_buildx() -> Result<PathBuf> {
    let directory = target().join("docker-buildx");
    let plugin = directory.join("usr/libexec/docker/cli-plugins/docker-buildx");
    if !plugin.exists() {
        packages(&[("/usr/bin/mmdebstrap", "mmdebstrap")])?;
        let partial = target().join("docker-buildx.partial");
        for old in [&partial, &directory] {
            let _ = std::fs::remove_dir_all(old);
        }
        // A mirror may be a snapshot whose Release file is past its date.
        Shell::default().run(&format!(
            "mmdebstrap --variant=extract --aptopt='Acquire::Check-Valid-Until \"false\"' \
             --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --include=docker-buildx \
             sid {} 'deb {} sid main'",
            partial.display(),
            debian_archive()?,
        ))?;
        std::fs::rename(&partial, &directory)?;
    }
    Ok(plugin)
}

/// A Debian base system as a tar file, made with this machine's own apt sources.
pub fn debian_base() -> Result<PathBuf> {
    let file = target().join("debian-bookworm.tar");
    if file.exists() {
        return Ok(file);
    }
    std::fs::create_dir_all(target())?;
    let sources = apt_sources()?;
    let partial = file.with_extension("partial.tar");
    // A mirror may be a snapshot whose Release file is past its date.
    Shell::default().run(&format!(
        "mmdebstrap --variant=apt --aptopt='Acquire::Check-Valid-Until \"false\"' bookworm {} {sources}",
        partial.display()
    ))?;
    std::fs::rename(&partial, &file)?;
    Ok(file)
}

/// The files of /etc/apt that name Debian's own archive for bookworm.
pub fn apt_sources() -> Result<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = std::fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.filter_map(Result::ok).map(|entry| entry.path()));
    }
    let names_bookworm = |file: &PathBuf| {
        std::fs::read_to_string(file).is_ok_and(|text| {
            text.lines().filter(|line| !line.trim_start().starts_with('#')).any(|line| {
                let mut words = line.split_whitespace();
                match words.next() {
                    Some("deb" | "Suites:") => words.any(|word| word == "bookworm"),
                    _ => false,
                }
            })
        })
    };
    let found: Vec<String> = files
        .iter()
        .filter(|file| names_bookworm(file))
        .map(|file| file.display().to_string())
        .collect();
    if found.is_empty() {
        bail!(
            "no file in /etc/apt names Debian 12 (bookworm): add its archive to /etc/apt/sources.list"
        );
    }
    Ok(found.join(" "))
}

/// The address of Debian's archive, as the files of /etc/apt name it for bookworm.
pub fn debian_archive() -> Result<String> {
    let files = apt_sources()?;
    for file in files.split_whitespace() {
        let text = std::fs::read_to_string(file)?;
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        // security updates are an archive of their own
        let found = lines
            .flat_map(str::split_whitespace)
            .find(|word| word.contains("://") && !word.contains("security"));
        if let Some(found) = found {
            return Ok(found.to_owned());
        }
    }
    bail!("no file in /etc/apt names the address of Debian's archive")
}
