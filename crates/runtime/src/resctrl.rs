//! Classes of service for caches and memory bandwidth: resctrl groups (filesystems/resctrl.rst), as
//! config-linux.md, "IntelRdt", asks for them.
//!
//! The caller gives the directory on which resctrl is mounted.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use bulkhead_sys::path;
use bulkhead_types::oci::IntelRdt;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

#[derive(Debug, thiserror::Error)]
pub enum ResctrlError {
    #[error("invalid intelRdt.closID {0:?}: it names one directory, or is /")]
    ClosId(String),
    #[error("invalid intelRdt schema {0:?}: it holds a line break")]
    Schema(String),
    #[error(
        "intelRdt.closID {0:?} has no group (it must be there already when schemata, l3CacheSchema \
         and memBwSchema are empty)"
    )]
    NoGroup(String),
    #[error(
        "intelRdt.closID {clos:?} has a group with another schema than {wanted:?}: it has {found:?}"
    )]
    Differs { clos: String, wanted: String, found: String },
    #[error("intelrdt: {what}: {cause}{status}")]
    Kernel { what: String, cause: io::Error, status: String },
}

/// The group of a container, open.
#[derive(Debug)]
pub struct Group {
    root: OwnedFd,
    group: OwnedFd,
    monitoring: Option<OwnedFd>,
    remains: Vec<PathBuf>,
}

/// Finds where resctrl is mounted in the text of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
pub fn mounted(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        kind.starts_with("resctrl ").then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    })
}

impl Group {
    /// Makes or opens the group for the container `id`, and its monitoring group if it is to have
    /// one. On an error nothing that was made stays.
    pub fn create(root: &Path, id: &str, rdt: &IntelRdt) -> Result<Self, ResctrlError> {
        let schemata = schemata(rdt)?;
        let name = name(id, rdt)?;
        let directory = OFlags::RDONLY | OFlags::DIRECTORY;
        let failed = |what: String| {
            move |cause: io::Error| ResctrlError::Kernel { what, cause, status: String::new() }
        };
        let open = path::open_host(root, directory);
        let root_fd = open.map_err(failed(format!("open {}", root.display())))?;
        let mut remains = Vec::new();
        let existed = match name {
            None => true,
            Some(name) => match rustix::fs::mkdirat(&root_fd, name, MODE) {
                Ok(()) => {
                    remains.push(PathBuf::from(name));
                    false
                }
                Err(Errno::EXIST) => true,
                Err(errno) => {
                    let status = last_status(&root_fd);
                    let what = format!("make the group {name:?}");
                    return Err(ResctrlError::Kernel { what, cause: errno.into(), status });
                }
            },
        };
        let made = Self::fill(root_fd, id, rdt, name, existed, &schemata, &mut remains);
        let mut group = match made {
            Ok(group) => group,
            Err(error) => {
                let _ = remove(root, remains.iter().rev().map(PathBuf::as_path));
                return Err(error);
            }
        };
        // a class that has a name is others' as well
        if !rdt.clos_id.is_empty() {
            remains.retain(|path| path.components().any(|it| it.as_os_str() == "mon_groups"));
        }
        group.remains = remains;
        Ok(group)
    }

    fn fill(
        root: OwnedFd,
        id: &str,
        rdt: &IntelRdt,
        name: Option<&str>,
        existed: bool,
        schemata: &[&str],
        remains: &mut Vec<PathBuf>,
    ) -> Result<Self, ResctrlError> {
        if !existed && !rdt.clos_id.is_empty() && schemata.is_empty() {
            return Err(ResctrlError::NoGroup(rdt.clos_id.clone()));
        }
        let refused = |what: String, cause: io::Error| {
            let status = last_status(&root);
            ResctrlError::Kernel { what, cause, status }
        };
        let below = Path::new(name.unwrap_or("."));
        let directory = OFlags::RDONLY | OFlags::DIRECTORY;
        let group = path::open(root.as_fd(), below, directory, Mode::empty())
            .map_err(|error| refused(format!("open the group {}", below.display()), error))?;
        if existed && !rdt.clos_id.is_empty() {
            for wanted in schemata.iter().filter(|it| !rdt.schemata.iter().any(|own| own == *it)) {
                compare(&group, &rdt.clos_id, wanted)
                    .map_err(|error| refused("read schemata".to_owned(), error))??;
            }
        }
        for line in schemata {
            write(&group, "schemata", line)
                .map_err(|error| refused(format!("unable to write {line:?}"), error))?;
        }
        let mut monitoring = None;
        if rdt.enable_monitoring {
            let path = below.join("mon_groups").join(id);
            let made = path::open_parent(root.as_fd(), &path, false).and_then(|(parent, name)| {
                rustix::fs::mkdirat(&parent, name.as_os_str(), MODE)?;
                path::open(parent.as_fd(), Path::new(&name), directory, Mode::empty())
            });
            let what = || format!("make the monitoring group {}", path.display());
            monitoring = Some(made.map_err(|error| refused(what(), error))?);
            remains.push(path);
        }
        Ok(Self { root, group, monitoring, remains: Vec::new() })
    }

    /// Puts a process into the group; those that it makes follow it.
    pub fn add(&self, pid: u32) -> Result<(), ResctrlError> {
        for group in [Some(&self.group), self.monitoring.as_ref()].into_iter().flatten() {
            write(group, "tasks", &pid.to_string()).map_err(|cause| {
                let status = last_status(&self.root);
                ResctrlError::Kernel { what: format!("unable to add pid {pid}"), cause, status }
            })?;
        }
        Ok(())
    }

    /// What has to be removed with the container, below the root, outermost first.
    pub fn remains(&self) -> &[PathBuf] {
        &self.remains
    }
}

/// Puts one more process into a container's group, which is there.
pub fn add(root: &Path, id: &str, rdt: &IntelRdt, pid: u32) -> Result<(), ResctrlError> {
    let name = name(id, rdt)?.unwrap_or(".");
    let mut groups = vec![PathBuf::from(name)];
    groups.extend(rdt.enable_monitoring.then(|| Path::new(name).join("mon_groups").join(id)));
    let what = |cause| {
        let what = format!("unable to add pid {pid}");
        ResctrlError::Kernel { what, cause, status: String::new() }
    };
    let directory = OFlags::RDONLY | OFlags::DIRECTORY;
    let root = path::open_host(root, directory).map_err(what)?;
    for path in groups {
        path::open(root.as_fd(), &path, directory, Mode::empty())
            .and_then(|group| write(&group, "tasks", &pid.to_string()))
            .map_err(what)?;
    }
    Ok(())
}

/// Removes groups below `root`, innermost first; one that is gone is no error.
pub fn remove<'a>(root: &Path, paths: impl Iterator<Item = &'a Path>) -> io::Result<()> {
    let root = path::open_host(root, OFlags::RDONLY | OFlags::DIRECTORY)?;
    for path in paths {
        let removed = path::open_parent(root.as_fd(), path, false).and_then(|(parent, name)| {
            Ok(rustix::fs::unlinkat(&parent, name.as_os_str(), AtFlags::REMOVEDIR)?)
        });
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

const MODE: Mode = Mode::from_raw_mode(0o755);

/// The group's directory; `None` is the root, the default class.
fn name<'a>(id: &'a str, rdt: &'a IntelRdt) -> Result<Option<&'a str>, ResctrlError> {
    match rdt.clos_id.as_str() {
        "" => Ok(Some(id)),
        "/" => Ok(None),
        clos if matches!(clos, "." | "..") || clos.contains(['/', '\0', '\n']) => {
            Err(ResctrlError::ClosId(clos.to_owned()))
        }
        clos => Ok(Some(clos)),
    }
}

/// The lines in the order in which they have to be written.
fn schemata(rdt: &IntelRdt) -> Result<Vec<&str>, ResctrlError> {
    let lines = [&rdt.l3_cache_schema, &rdt.mem_bw_schema].into_iter().chain(&rdt.schemata);
    let lines: Vec<&str> = lines.map(String::as_str).filter(|it| !it.is_empty()).collect();
    match lines.iter().find(|line| line.contains('\n')) {
        Some(bad) => Err(ResctrlError::Schema((*bad).to_owned())),
        None => Ok(lines),
    }
}

/// Compares a line with what a group has; numbers may be written in several ways.
fn compare(group: &OwnedFd, clos: &str, wanted: &str) -> io::Result<Result<(), ResctrlError>> {
    let mut text = String::new();
    let file = path::open(group.as_fd(), Path::new("schemata"), OFlags::RDONLY, Mode::empty())?;
    File::from(file).read_to_string(&mut text)?;
    let domains = |line: &str| -> Option<(String, Vec<(String, String)>)> {
        let (kind, rest) = line.trim().split_once(':')?;
        let domain = |it: &str| {
            let (id, value) = it.split_once('=')?;
            let value = value.trim().trim_start_matches('0').to_ascii_lowercase();
            Some((id.trim().to_owned(), value))
        };
        Some((kind.trim().to_owned(), rest.split(';').filter_map(domain).collect()))
    };
    let Some((kind, values)) = domains(wanted) else { return Ok(Ok(())) };
    let found = text.lines().find(|line| domains(line).is_some_and(|(it, _)| it == kind));
    let has = found.and_then(domains).map(|(_, values)| values).unwrap_or_default();
    Ok(if values.iter().all(|value| has.contains(value)) {
        Ok(())
    } else {
        let found = found.unwrap_or_default().trim().to_owned();
        let (clos, wanted) = (clos.to_owned(), wanted.to_owned());
        Err(ResctrlError::Differs { clos, wanted, found })
    })
}

fn write(group: &OwnedFd, file: &str, line: &str) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::TRUNC;
    let file = path::open(group.as_fd(), Path::new(file), flags, Mode::empty())?;
    File::from(file).write_all(format!("{line}\n").as_bytes())
}

/// Why the kernel refused the last write, in its words; ready to be put behind an error.
fn last_status(root: &OwnedFd) -> String {
    let mut text = String::new();
    let path = Path::new("info/last_cmd_status");
    let read = path::open(root.as_fd(), path, OFlags::RDONLY, Mode::empty())
        .and_then(|file| File::from(file).read_to_string(&mut text));
    match (read, text.trim()) {
        (Ok(_), status) if !matches!(status, "" | "ok") => format!(" ({status})"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests;
