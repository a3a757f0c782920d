//! What the virtual machines are made of, from Debian's packages: each is downloaded once and kept
//! below `target/vm`; nothing is installed on the host.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::setup;
use crate::shell::Shell;

/// Where everything is made.
pub fn place() -> PathBuf {
    setup::target().join("vm")
}

/// Debian's kernel for virtual machines.
pub struct Kernel {
    /// The package's files.
    pub root: PathBuf,
    pub version: String,
}

impl Kernel {
    pub fn unpack() -> Result<Self> {
        let name = "$(apt-cache depends linux-image-cloud-amd64 | \
                    sed -n 's/.*Depends: \\(linux-image[^ ]*\\)$/\\1/p')";
        let root = package("kernel", name)?;
        let modules = root.join("lib/modules");
        let entry = std::fs::read_dir(&modules)?.next().context("the package has modules")??;
        let version = entry.file_name().to_string_lossy().into_owned();
        Ok(Self { root, version })
    }
}

/// Compiles AppArmor profiles to what the kernel loads, with the features of the package's own
/// description of a kernel: the host's may have no AppArmor.
pub fn compile_profiles(source: &str, target: &Path) -> Result<()> {
    let root = package("apparmor", "apparmor")?;
    let text = target.with_extension("profiles");
    std::fs::write(&text, source)?;
    Shell::default().within(&root).run(&format!(
        "sbin/apparmor_parser --skip-kernel-load --skip-cache --quiet \
         --features-file etc/apparmor.d/abi/3.0 --ofile {} {}",
        target.display(),
        text.display()
    ))?;
    Ok(())
}

/// What is on the disk of the machines that systemd boots, besides what is essential to Debian.
const SYSTEM: &str = "apparmor,busybox-static,conmon,containerd,dbus,dbus-user-session,docker.io,\
    iproute2,iptables,libpam-systemd,netavark,podman,procps,rootlesskit,slirp4netns,systemd,uidmap";

/// A disk with Debian's systemd, and the clients of an OCI runtime; machines write to copies of it.
pub fn system_disk() -> Result<PathBuf> {
    let disk = place().join("system.ext4");
    // one that was made of other packages is made again
    let list = place().join("system.packages");
    if !disk.exists() || std::fs::read_to_string(&list).ok().as_deref() != Some(SYSTEM) {
        let sources = setup::apt_sources()?;
        let excluded = ["doc", "locale", "man", "i18n"]
            .map(|it| format!("--dpkgopt='path-exclude=/usr/share/{it}/*'"))
            .join(" ");
        // unpacked by its own tool: what is not root's keeps its owner in the image
        Shell::default().within(&place()).run(&format!(
            "set -e
            rm -rf system.root system.partial
            mmdebstrap --variant=essential --include={SYSTEM} {excluded} \
                --aptopt='Acquire::Check-Valid-Until \"false\"' bookworm system.root {sources}
            rm -rf system.root/var/cache/apt system.root/var/lib/apt
            : > system.root/etc/machine-id
            truncate -s 1G system.partial
            mkfs.ext4 -q -d system.root system.partial
            rm -rf system.root
            mv system.partial system.ext4"
        ))?;
        std::fs::write(&list, SYSTEM)?;
    }
    Ok(disk)
}

/// The files of a Debian package.
fn package(directory: &str, name: &str) -> Result<PathBuf> {
    let root = place().join(directory);
    if !root.exists() {
        let partial = place().join("partial");
        let _ = std::fs::remove_dir_all(&partial);
        std::fs::create_dir_all(&partial)?;
        Shell::default().within(&partial).run(&format!(
            "apt-get update -q && name={name} && \
             apt-get download \"${{name:?there is no such package}}\" && \
             dpkg -x *.deb . && rm *.deb"
        ))?;
        std::fs::rename(&partial, &root)?;
    }
    Ok(root)
}
