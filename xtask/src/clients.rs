//! Debian's own `docker.io`, `containerd` and `podman` with Bulkhead as their OCI runtime.
//!
//! They are unpacked beside the build and installed nowhere. Each runs as a shell script of cases
//! (`clients/docker.sh` and its kin) in namespaces and a cgroup of its own (`clients/enter.sh`), so
//! that neither a Docker of the host nor anything else of it is touched.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::setup;
use crate::shell::Shell;
use crate::tally::{Case, Tally};

const PACKAGES: &[(&str, &str)] =
    &[("/usr/bin/mmdebstrap", "mmdebstrap"), ("/usr/bin/busybox", "busybox-static")];

/// What is in the system that the clients run in, with what they depend on.
const CLIENTS: &str = "base-files,bash,bsdutils,busybox-static,ca-certificates,conmon,containerd,\
    coreutils,dash,docker.io,findutils,grep,gzip,iproute2,libc-bin,mount,podman,procps,sed,tar,\
    uidmap,util-linux";

/// The scripts, all in one directory when they run.
const SCRIPTS: &[(&str, &str)] = &[
    ("enter.sh", include_str!("clients/enter.sh")),
    ("common.sh", include_str!("clients/common.sh")),
    ("docker.sh", include_str!("clients/docker.sh")),
    ("containerd.sh", include_str!("clients/containerd.sh")),
    ("podman.sh", include_str!("clients/podman.sh")),
];

pub fn test(tally: &mut Tally, bin: &Path) {
    let mut root = PathBuf::new();
    tally.check("clients: unpack Debian's docker.io, containerd and podman", || {
        setup::packages(PACKAGES)?;
        root = unpack()?;
        Ok(())
    });
    if !root.exists() {
        return;
    }
    for client in ["docker", "containerd", "podman"] {
        let started = Instant::now();
        let cases = || all_of(&root, &bin.join("bulkhead"), client);
        let first = cases();
        // one case needs those before it: the whole script is run again
        tally.cases(first, &mut |_| cases());
        println!("{client}: {:.1} s", started.elapsed().as_secs_f64());
    }
}

/// Every case of one client, and what it has left on the host.
fn all_of(root: &Path, program: &Path, client: &str) -> Vec<Case> {
    let cgroup = format!("bulkhead-clients-{client}-{}", std::process::id());
    let mut said = String::new();
    let mut cases = vec![Case::of(format!("{client}: run"), || {
        said = run(root, program, client, &cgroup)?;
        ensure!(said.lines().any(|line| line == "clients: end"), "it did not come to its end");
        Ok(())
    })];
    cases.extend(said.lines().filter_map(|line| Case::read(line, "")));
    let left = format!("{client}: nothing left: cgroups on the host");
    cases.push(Case::of(left, || remove(&cgroup)));
    cases
}

/// A Debian system whose packages are unpacked, not installed; made once.
fn unpack() -> Result<PathBuf> {
    let place = setup::target().join("clients");
    let root = place.join("root");
    if !root.exists() {
        let partial = place.join("partial");
        let _ = std::fs::remove_dir_all(&partial);
        std::fs::create_dir_all(&place)?;
        // A mirror may be a snapshot whose Release file is past its date.
        Shell::default().run(&format!(
            "mmdebstrap --variant=extract --aptopt='Acquire::Check-Valid-Until \"false\"' \
             --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --include={CLIENTS} \
             bookworm {} {}",
            partial.display(),
            setup::apt_sources()?
        ))?;
        std::fs::rename(&partial, &root)?;
    }
    Ok(root)
}

/// Runs one client's cases and returns what they said.
fn run(root: &Path, program: &Path, client: &str, cgroup: &str) -> Result<String> {
    let scripts = root.with_file_name("scripts");
    std::fs::create_dir_all(&scripts)?;
    for (name, text) in SCRIPTS {
        std::fs::write(scripts.join(name), text)?;
    }
    let said = Shell::default().run(&format!(
        "timeout --kill-after 10 300 sh {}/enter.sh {} {} {client}.sh {cgroup}",
        scripts.display(),
        root.display(),
        program.display()
    ));
    // what was mounted there has gone with the namespaces
    std::fs::remove_dir(root.with_extension("scratch").join(cgroup))?;
    said
}

/// Removes the test's own cgroup everywhere; what is left below it, the script has judged.
pub fn remove(cgroup: &str) -> Result<()> {
    let left = Shell::default().ask(&format!(
        // a hierarchy that is mounted twice is empty the second time
        "awk '$3 ~ /^cgroup2?$/ {{print $2}}' /proc/mounts | while read -r top; do \
             top=$(printf %b \"$top\"); [ ! -e \"$top/{cgroup}\" ] || \
             find \"$top/{cgroup}\" -depth -type d -exec rmdir {{}} \\; ; \
         done"
    ))?;
    ensure!(left.success && left.output.is_empty(), "{}", left.output);
    Ok(())
}
