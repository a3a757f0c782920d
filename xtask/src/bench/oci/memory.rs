//! The smallest memory cgroup in which a runtime still starts a container.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::bundle::{Bundles, Variant};
use super::cgroups;
use super::runtime::{Runtime, launch};
use super::views::View;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    /// The runtime with its container, by a cgroup around both.
    All,
    /// The container, by `linux.resources.memory.limit`.
    Container,
}

/// kB.
const SIZES: [u64; 26] = [
    64, 128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048, 2560, 3072,
    4096, 5120, 6144, 8192, 10240, 12288, 16384, 24576,
];

/// The first of [`SIZES`] with which three runs out of three end well; `own` is the view in which
/// the machine's v1 memory hierarchy is seen.
pub fn smallest(
    limited: Limited,
    runtime: &mut Runtime,
    views: &[View],
    own: &View,
    bundles: &Bundles,
    cgroup: &str,
) -> Result<Option<u64>> {
    let (mut low, mut high) = (0, SIZES.len());
    while low < high {
        let middle = (low + high) / 2;
        let mut works = true;
        for _ in 0..3 {
            works =
                works && try_once(limited, SIZES[middle], runtime, views, own, bundles, cgroup)?;
        }
        if works { high = middle } else { low = middle + 1 }
    }
    Ok(SIZES.get(low).copied())
}

fn try_once(
    limited: Limited,
    size: u64,
    runtime: &mut Runtime,
    views: &[View],
    own: &View,
    bundles: &Bundles,
    cgroup: &str,
) -> Result<bool> {
    let id = runtime.id();
    own.enter()?;
    let name = format!("limited/{id}");
    let around = (limited == Limited::All).then(|| Around::create(cgroup, size)).transpose()?;
    let memory = (limited == Limited::Container).then_some(size * 1024);
    let bundle = bundles.write(&name, "/noop", Variant::Plain, memory)?;
    views[runtime.view].enter()?;
    let words = runtime.arguments(&["run", "--bundle", &bundle.to_string_lossy(), &id]);
    let ended = launch(&words, around.as_ref().map(|it| &it.procs))?;
    let works = ended.is_some_and(|it| it.status == 0);
    if !works {
        runtime.delete(&id);
    }
    std::fs::remove_dir_all(bundle)?;
    own.enter()?;
    if let Some(around) = around {
        cgroups::remove(&around.directory)?;
    }
    Ok(works)
}

/// A v1 memory cgroup that the containers' ones of this probe are in too.
struct Around {
    directory: PathBuf,
    procs: OwnedFd,
}

impl Around {
    fn create(cgroup: &str, size: u64) -> Result<Self> {
        let directory = Path::new(MEMORY).join(cgroup).join("limited");
        std::fs::create_dir_all(&directory)?;
        let limit = directory.join("memory.limit_in_bytes");
        std::fs::write(&limit, (size * 1024).to_string()).context("set memory.limit_in_bytes")?;
        let procs = std::fs::File::options().write(true).open(directory.join("cgroup.procs"))?;
        Ok(Self { directory, procs: procs.into() })
    }
}

/// Where the v1 controller is, if it is.
const MEMORY: &str = "/sys/fs/cgroup/memory";

pub fn is_there() -> bool {
    Path::new(MEMORY).join("memory.limit_in_bytes").exists()
}
