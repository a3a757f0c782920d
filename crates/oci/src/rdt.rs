//! `linux.intelRdt`: the container's resctrl group.

use std::path::{Path, PathBuf};

use bulkhead_runtime::resctrl::{self, Group};
use bulkhead_types::oci::{Config, IntelRdt};

use crate::error::{Error, Result};

/// Where resctrl is mounted; `None` if the container asks for none of it.
pub fn root(config: &Config) -> Result<Option<PathBuf>> {
    if wanted(config).is_none() {
        return Ok(None);
    }
    let file = "/proc/self/mountinfo";
    let mounts = std::fs::read_to_string(file).map_err(Error::system(format!("read {file}")))?;
    let root = resctrl::mounted(&mounts).ok_or_else(|| {
        // runc's sentence, and what to do
        Error::Config(
            "intelRdt is specified in config, but Intel RDT is not enabled: mount it with `mount -t \
             resctrl resctrl /sys/fs/resctrl`, or leave linux.intelRdt out"
                .to_owned(),
        )
    })?;
    Ok(Some(root))
}

/// Makes the group and puts the container's first process into it; returns what its record keeps.
pub fn adopt(root: &Path, id: &str, config: &Config, pid: u32) -> Result<String> {
    let Some(rdt) = wanted(config) else { return Ok(String::new()) };
    let group = Group::create(root, id, rdt)?;
    if let Err(error) = group.add(pid) {
        let _ = resctrl::remove(root, group.remains().iter().rev().map(PathBuf::as_path));
        return Err(error.into());
    }
    let lines = group.remains().iter().map(|path| root.join(path).display().to_string());
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// Puts one more process into the group of a container.
pub fn add(id: &str, config: &Config, pid: u32) -> Result<()> {
    let (Some(rdt), Some(root)) = (wanted(config), root(config)?) else { return Ok(()) };
    Ok(resctrl::add(&root, id, rdt, pid)?)
}

/// Removes what a record says of groups.
pub fn remove(recorded: &str) -> Result<()> {
    for path in recorded.lines().rev().map(Path::new) {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
        match resctrl::remove(parent, [Path::new(name)].into_iter()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            other => other.map_err(Error::system(format!("remove {}", path.display())))?,
        }
    }
    Ok(())
}

fn wanted(config: &Config) -> Option<&IntelRdt> {
    config.linux.as_ref()?.intel_rdt.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_groups_are_removed_once() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("box/mon_groups/box");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::remove_dir(&inner).unwrap();
        std::fs::remove_dir(root.path().join("box/mon_groups")).unwrap();
        let recorded = format!("{}/box\n{0}/box/mon_groups/box", root.path().display());
        remove(&recorded).unwrap();
        assert!(!root.path().join("box").exists());
        remove(&recorded).unwrap();
        remove("").unwrap();
    }
}
