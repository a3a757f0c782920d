//! Races for a mount's target: somebody who shares a container's files exchanges a directory for a
//! link, while the runtime works with it.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use bulkhead_tests::bundle::{Bundle, Runtime};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

use crate::{Attempt, entries, stopped_here};

/// At most; a control is done when it was hit once.
const ROUNDS: usize = 80;
const TIME: Duration = Duration::from_secs(10);

/// Exchanges two names as fast as it goes while `work` is done.
fn swapping<T>(one: &Path, other: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // one that is a mount point elsewhere may be busy
                let _ = renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE);
                std::thread::yield_now();
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}

/// Runs the bundle again and again beside the exchange, until something appears in the canary.
fn raced(runtime: &Runtime, bundle: &Bundle, pair: [&Path; 2], canary: &Path) -> Result<Attempt> {
    bundle.write()?;
    let end = Instant::now() + TIME;
    swapping(pair[0], pair[1], || {
        for round in 0..ROUNDS {
            // the loser of a race may fail: it must only not do so on the host
            runtime.run(bundle)?;
            let found = entries(canary)?;
            if !found.is_empty() {
                return Ok(Attempt::Escaped(format!("made {found:?} in round {round}")));
            }
            if Instant::now() > end {
                return Ok(Attempt::Stopped(format!("0 hits in {} rounds", round + 1)));
            }
        }
        Ok(Attempt::Stopped(format!("0 hits in {ROUNDS} rounds")))
    })
}

#[test]
fn cve_2021_30465_cve_2024_45310_target_exchanged_for_a_link() -> Result<()> {
    let attack = |runtime: &Runtime| {
        let mut bundle = Bundle::new(&["true"])?;
        let (canary, volume) = (bundle.beside("canary"), bundle.beside("volume"));
        std::fs::create_dir(&canary)?;
        std::fs::create_dir_all(volume.join("place"))?;
        symlink(&canary, volume.join("link"))?;
        bundle.mount(json!({ "destination": "/mnt", "type": "bind", "source": volume,
            "options": ["rbind"] }));
        for name in ["a", "b", "c", "d"] {
            bundle.mount(json!({ "destination": format!("/mnt/place/{name}/x"), "type": "tmpfs",
                "source": "none" }));
        }
        raced(runtime, &bundle, [&volume.join("place"), &volume.join("link")], &canary)
    };
    stopped_here("CVE-2021-30465, CVE-2024-45310 raced", Runtime::weakened("paths"), attack)?;
    // it is hit in one of some dozens of rounds, too seldom to rely on
    if let Some(runc) = Runtime::old_runc() {
        println!("CVE-2024-45310 raced: {}: {:?}", runc.name, attack(&runc)?);
    }
    Ok(())
}

/// `/dev` of the image is exchanged for a link while nodes and masks are made.
#[test]
fn cve_2025_31133_cve_2026_41579_dev_exchanged_for_a_link() -> Result<()> {
    let attack = |runtime: &Runtime| {
        let mut bundle = Bundle::new(&["true"])?;
        let canary = bundle.beside("canary");
        std::fs::create_dir(&canary)?;
        bundle.without_mount("/dev");
        let (dev, link) = (bundle.rootfs().join("dev"), bundle.rootfs().join("dev-link"));
        symlink(&canary, &link)?;
        raced(runtime, &bundle, [&dev, &link], &canary)
    };
    stopped_here("CVE-2026-41579 raced", Runtime::old_runc(), attack)
}

/// The directory of a terminal is exchanged for one of links, which lead to a file of the host.
#[test]
fn cve_2025_52565_terminal_exchanged_for_a_link() -> Result<()> {
    stopped_here("CVE-2025-52565 raced", Runtime::weakened("console"), |runtime| {
        let mut bundle = Bundle::new(&["sh", "-c", "echo overwritten > /dev/console"])?;
        let canary = bundle.beside("canary");
        std::fs::write(&canary, "untouched")?;
        bundle.config["process"]["terminal"] = json!(true);
        bundle.without_mount("/dev");
        bundle.mount(json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["newinstance", "ptmxmode=0666"] }));
        let (dev, evil) = (bundle.rootfs().join("dev"), bundle.rootfs().join("evil"));
        std::fs::create_dir_all(dev.join("pts"))?;
        std::fs::create_dir_all(evil.join("pts"))?;
        for name in ["pts/0", "pts/1", "pts/ptmx", "console"] {
            symlink(&canary, evil.join(name))?;
        }
        bundle.write()?;
        let end = Instant::now() + TIME;
        let (mut rounds, mut refused) = (0, 0);
        swapping(&dev, &evil, || {
            while rounds < ROUNDS && Instant::now() < end {
                let said = runtime.run(&bundle)?;
                rounds += 1;
                refused += usize::from(said.code != 0);
                let found = std::fs::read_to_string(&canary)?;
                if found != "untouched" {
                    return Ok(Attempt::Escaped(format!("wrote {found:?} in round {rounds}")));
                }
            }
            Ok(Attempt::Stopped(format!("0 hits in {rounds} rounds, {refused} refused")))
        })
    })
}
