//! Links in an image that lead out of it.

use std::os::unix::fs::symlink;

use anyhow::{Context, Result};
use bulkhead_tests::bundle::{Bundle, Runtime};
use serde_json::json;

use crate::{Attempt, by_directory, stopped_here};

/// A directory of the image is a link to one of the host, and something is mounted below it.
#[test]
fn cve_2019_18837_mount_target_through_a_link() -> Result<()> {
    stopped_here("CVE-2019-18837", Runtime::weakened("paths"), |runtime| {
        let mut bundle = Bundle::new(&["touch", "/etc-link/made/by-container"])?;
        let canary = bundle.beside("canary");
        std::fs::create_dir(&canary)?;
        symlink(&canary, bundle.rootfs().join("etc-link"))?;
        bundle.mount(json!({ "destination": "/etc-link/made", "type": "tmpfs", "source": "none" }));
        by_directory(&canary, &runtime.run(&bundle)?)
    })
}

/// The same with the source of a volume: its files would lie over the host's.
#[test]
fn cve_2021_30465_volume_over_the_host() -> Result<()> {
    stopped_here("CVE-2021-30465", Runtime::weakened("paths"), |runtime| {
        let mut bundle = Bundle::new(&["true"])?;
        let (canary, volume) = (bundle.beside("canary"), bundle.beside("volume"));
        std::fs::create_dir(&canary)?;
        std::fs::create_dir(&volume)?;
        symlink(&canary, bundle.rootfs().join("mnt/link"))?;
        bundle.mount(json!({ "destination": "/mnt/link/deep/er", "type": "bind",
            "source": volume, "options": ["rbind"] }));
        by_directory(&canary, &runtime.run(&bundle)?)
    })
}

/// Files that are made as mount points.
#[test]
fn cve_2024_45310_empty_files_on_the_host() -> Result<()> {
    stopped_here("CVE-2024-45310", Runtime::weakened("paths"), |runtime| {
        let mut bundle = Bundle::new(&["true"])?;
        let (canary, file) = (bundle.beside("canary"), bundle.beside("file"));
        std::fs::create_dir(&canary)?;
        std::fs::write(&file, "")?;
        symlink(&canary, bundle.rootfs().join("mnt/link"))?;
        for target in ["/mnt/link/file", "/mnt/link/../canary/other", "//mnt//link//third"] {
            bundle.mount(json!({ "destination": target, "type": "bind", "source": file,
                "options": ["bind"] }));
        }
        by_directory(&canary, &runtime.run(&bundle)?)
    })
}

/// The image's `/dev` is a link to a directory of the host, and nothing is mounted on it.
#[test]
fn cve_2026_41579_cve_2026_47766_devices_made_on_the_host() -> Result<()> {
    let attack = |runtime: &Runtime| {
        let mut bundle = Bundle::new(&["true"])?;
        let canary = bundle.beside("canary");
        std::fs::create_dir(&canary)?;
        std::fs::remove_dir(bundle.rootfs().join("dev"))?;
        symlink(&canary, bundle.rootfs().join("dev"))?;
        bundle.without_mount("/dev");
        by_directory(&canary, &runtime.run(&bundle)?)
    };
    stopped_here("CVE-2026-41579 on runc", Runtime::old_runc(), attack)?;
    stopped_here("CVE-2026-41579, CVE-2026-47766", Runtime::weakened("paths"), attack)
}

/// `/dev/null` of the image is a link: what it leads to is bound over a masked file, and shown.
#[test]
fn cve_2025_31133_null_that_is_a_link() -> Result<()> {
    let attack = |runtime: &Runtime| {
        let mut bundle = Bundle::new(&["sh", "-c", "echo overwritten; cat /proc/keys"])?;
        // On the host and, for those who follow the link within, in the container: there it stands
        // for a file of procfs.
        let canary = bundle.beside("canary");
        let inside = bundle.rootfs().join(canary.strip_prefix("/")?);
        std::fs::create_dir_all(inside.parent().context("it has a parent")?)?;
        std::fs::write(&canary, "the host's secret")?;
        std::fs::write(&inside, "the host's secret")?;
        bundle.without_mount("/dev");
        symlink(&canary, bundle.rootfs().join("dev/null"))?;
        let said = runtime.run(&bundle)?;
        let changed = [&canary, &inside]
            .iter()
            .any(|file| std::fs::read_to_string(file).ok().as_deref() != Some("the host's secret"));
        Ok(if said.stdout.contains("secret") || changed {
            Attempt::Escaped("the canary is shown or written to".to_owned())
        } else {
            Attempt::Stopped(format!("status {}: {}", said.code, said.stderr.trim()))
        })
    };
    // runc 1.1.5 shows the canary, and sends it the container's output too
    stopped_here("CVE-2025-31133 on runc", Runtime::old_runc(), attack)?;
    stopped_here("CVE-2025-31133", Runtime::weakened("null"), attack)
}

/// `/proc` of the image is a link: what is masked and labelled later is not the kernel's.
#[test]
fn cve_2019_19921_proc_that_is_a_link() -> Result<()> {
    stopped_here("CVE-2019-19921, CVE-2023-27561", Runtime::weakened("strict"), |runtime| {
        let bundle = Bundle::new(&["sh", "-c", "ls /evil/self/status && cat /evil/keys"])?;
        std::fs::create_dir(bundle.rootfs().join("evil"))?;
        std::fs::remove_dir(bundle.rootfs().join("proc"))?;
        symlink("evil", bundle.rootfs().join("proc"))?;
        redirected(&runtime.run(&bundle)?)
    })
}

#[test]
fn cve_2023_28642_sys_that_is_a_link() -> Result<()> {
    stopped_here("CVE-2023-28642", Runtime::weakened("strict"), |runtime| {
        let bundle = Bundle::new(&["ls", "/evil/kernel"])?;
        std::fs::create_dir(bundle.rootfs().join("evil"))?;
        std::fs::remove_dir(bundle.rootfs().join("sys"))?;
        symlink("evil", bundle.rootfs().join("sys"))?;
        redirected(&runtime.run(&bundle)?)
    })
}

fn redirected(said: &bulkhead_tests::Said) -> Result<Attempt> {
    Ok(if said.code == 0 {
        Attempt::Escaped("mounted where the link leads".to_owned())
    } else {
        Attempt::Stopped(said.stderr.trim().to_owned())
    })
}
