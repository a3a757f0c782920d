//! What a volume leads to: its directory on this host, or what `docker volume create -o` names.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use bulkhead_sys::mount::Attributes;
use bulkhead_sys::path;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::clone_mount::Below;
use crate::error::io_error;
use crate::file_system::{self, FileSystem};
use crate::tmpfs_options::TmpfsOptions;
use crate::{Class, EngineError};

/// The options of Docker's local driver (moby: daemon/volume/local), as they were given, and what
/// they mean.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct DriverOptions {
    source: VolumeSource,
    /// What the mount may not be used for, beside what a place in a container says.
    attributes: Attributes,
    given: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum VolumeSource {
    /// A directory of the engine's own.
    #[default]
    Directory,
    /// `type=none`, `o=bind`: a directory of this host.
    Bind { device: String, below: Below },
    /// `type=tmpfs`
    Tmpfs(TmpfsOptions),
    /// What the kernel mounts: a server's directory, a disk.
    FileSystem(FileSystem),
}

/// The root of a volume.
pub(crate) enum Root {
    /// A directory that is mounted on this host, and whether what is mounted below it comes along.
    Directory(OwnedFd, Below),
    /// A mount of its own, in no place yet.
    Mount(OwnedFd),
}

impl DriverOptions {
    /// # Errors
    /// Names what the driver does not have, and what is missing.
    pub fn parse(given: BTreeMap<String, String>) -> Result<Self, EngineError> {
        let value = |name: &str| given.get(name).map(String::as_str).unwrap_or_default();
        if let Some(name) =
            given.keys().find(|name| !matches!(name.as_str(), "type" | "o" | "device" | "size"))
        {
            return Err(EngineError::invalid(format!(
                "invalid option: {name:?}; there are type, device and o"
            )));
        }
        if given.is_empty() {
            return Ok(Self::default());
        }
        let (kind, device, words) = (value("type"), value("device"), value("o"));
        let is_sized = words.split(',').any(|word| word.starts_with("size="));
        if given.contains_key("size") || kind.is_empty() && device.is_empty() && is_sized {
            return Err(unsupported(
                "option size",
                "a directory is as large as its file system lets it, since no project quotas are \
                 set; a tmpfs has a size (type=tmpfs, device=tmpfs, o=size=100m), and so has a \
                 file system of its own (type=ext4, device=/dev/DISK)",
            ));
        }
        if device.is_empty() {
            return Err(EngineError::invalid("missing device in volume options"));
        }
        let (attributes, rest) = file_system::mount_words(words);
        let source = match kind {
            "none" | "bind" | "" => bind(device, &rest)?,
            "tmpfs" => VolumeSource::Tmpfs(TmpfsOptions::parse(&rest.join(","))?),
            kind => VolumeSource::FileSystem(FileSystem::parse(kind, device, rest)?),
        };
        Ok(Self { source, attributes, given })
    }

    pub fn given(&self) -> &BTreeMap<String, String> {
        &self.given
    }

    /// Whether the volume is a directory of the engine's own.
    pub(crate) fn is_directory(&self) -> bool {
        self.source == VolumeSource::Directory
    }

    /// Whether what is in it lives only while it is mounted, so that it cannot be in two places.
    pub(crate) fn is_memory(&self) -> bool {
        matches!(self.source, VolumeSource::Tmpfs(_))
    }

    /// What a mount of the volume is restricted to.
    pub(crate) fn attributes(&self) -> Attributes {
        self.attributes
    }

    /// Opens the volume's root; `own` is its directory on this host.
    pub(crate) fn open(&self, name: &str, own: OwnedFd) -> Result<Root, EngineError> {
        match &self.source {
            VolumeSource::Directory => Ok(Root::Directory(own, Below::Without)),
            VolumeSource::Bind { device, below } => {
                let directory =
                    path::open_host(Path::new(device), OFlags::PATH | OFlags::DIRECTORY).map_err(
                        |error| {
                            EngineError::invalid(format!(
                                "failed to mount local volume {name}: {device}: {error}"
                            ))
                        },
                    )?;
                Ok(Root::Directory(directory, *below))
            }
            VolumeSource::Tmpfs(options) => {
                let mut words = vec!["mode=1777".to_owned()];
                words.extend(options.words().iter().filter(|word| word.contains('=')).cloned());
                let mount = file_system::mount("tmpfs", "tmpfs", &words);
                mount.map(Root::Mount).map_err(|error| {
                    io_error(format!("failed to mount local volume {name}: tmpfs"))(error)
                })
            }
            VolumeSource::FileSystem(system) => system.mount().map(Root::Mount).map_err(|error| {
                EngineError::invalid(format!("failed to mount local volume {name}: {error}"))
            }),
        }
    }
}

fn bind(device: &str, words: &[String]) -> Result<VolumeSource, EngineError> {
    let mut below = None;
    for word in words {
        match word.as_str() {
            "bind" => below = Some(Below::Without),
            "rbind" => below = Some(Below::With),
            "private" | "rprivate" => {}
            other => {
                return Err(unsupported(
                    &format!("o={other} of a bind"),
                    "there are bind, rbind, private, and ro, noexec, nosuid, nodev and the like",
                ));
            }
        }
    }
    let below = below.ok_or_else(|| {
        EngineError::invalid("invalid volume options: type=none goes with o=bind or o=rbind")
    })?;
    if !device.starts_with('/') {
        return Err(EngineError::invalid(format!(
            "invalid volume options: device {device:?} must be an absolute path"
        )));
    }
    Ok(VolumeSource::Bind { device: device.to_owned(), below })
}

fn unsupported(what: &str, instead: &str) -> EngineError {
    EngineError::new(
        Class::Unsupported,
        format!("volume {what} is not supported by Bulkhead: {instead}"),
    )
}

/// The part of a volume that is mounted: all of it, or what is at `subpath`, which no link leads
/// out of it.
pub(crate) fn open_subpath(
    volume: &str,
    root: OwnedFd,
    subpath: &str,
) -> Result<OwnedFd, EngineError> {
    if subpath.is_empty() {
        return Ok(root);
    }
    // Docker's words: its command line looks for "no such file or directory" to end with 127.
    open_below(root.as_fd(), subpath).map_err(|error| {
        let cause = match error.kind() {
            std::io::ErrorKind::NotFound => "no such file or directory".to_owned(),
            _ => error.to_string(),
        };
        EngineError::invalid(format!("cannot access path {subpath:?} of volume {volume}: {cause}"))
    })
}

fn open_below(root: BorrowedFd<'_>, subpath: &str) -> std::io::Result<OwnedFd> {
    use rustix::fs::ResolveFlags;
    // Not "in root": a link that leads out is an error, and not another place in the volume.
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Ok(rustix::fs::openat2(root, Path::new(subpath), flags, Mode::empty(), resolve)?)
}

/// From a record, where they have been read before.
impl TryFrom<BTreeMap<String, String>> for DriverOptions {
    type Error = EngineError;

    fn try_from(given: BTreeMap<String, String>) -> Result<Self, EngineError> {
        Self::parse(given)
    }
}

impl From<DriverOptions> for BTreeMap<String, String> {
    fn from(options: DriverOptions) -> Self {
        options.given
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[(&str, &str)]) -> Result<DriverOptions, EngineError> {
        let given = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        DriverOptions::parse(given.collect())
    }

    #[test]
    fn the_drivers_options_are_done_or_refused_by_name() {
        assert!(parse(&[]).unwrap().is_directory());
        let bind = parse(&[("type", "none"), ("o", "bind"), ("device", "/d")]).unwrap();
        assert_eq!(
            bind.source,
            VolumeSource::Bind { device: "/d".to_owned(), below: Below::Without }
        );
        assert!(parse(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,uid=33")]).is_ok());
        let readonly = parse(&[("type", "none"), ("o", "bind,ro,noexec"), ("device", "/d")]);
        let wanted = Attributes::RDONLY.with(Attributes::NOEXEC);
        assert_eq!(readonly.unwrap().attributes(), wanted);
        assert!(!parse(&[("type", "ext4"), ("device", "/dev/sda")]).unwrap().is_directory());
        let nfs = [("type", "nfs"), ("o", "addr=10.0.0.1,rw,nfsvers=4"), ("device", ":/export")];
        assert!(!parse(&nfs).unwrap().is_directory());
        for (options, why) in [
            (&[("bogus", "1")][..], "invalid option: \"bogus\""),
            (&[("type", "none"), ("o", "bind")], "missing device"),
            (&[("type", "none"), ("device", "/d")], "o=bind"),
            (&[("type", "none"), ("o", "bind"), ("device", "d")], "absolute path"),
            (&[("type", "none"), ("o", "bind,shared"), ("device", "/d")], "o=shared of a bind"),
            (&[("type", "zfs"), ("device", "tank")], "type=zfs"),
            (&[("o", "size=1g")], "project quotas"),
            (&[("type", "nfs"), ("device", ":/x")], "addr=ADDRESS"),
            (&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "bogus")], "bogus"),
            (&[("size", "1g")], "size"),
        ] {
            let error = parse(options).unwrap_err().message;
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_subpath_stays_in_its_volume() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        std::fs::create_dir_all(at.join("volume/a/b")).unwrap();
        std::fs::create_dir(at.join("outside")).unwrap();
        std::os::unix::fs::symlink("../outside", at.join("volume/out")).unwrap();
        std::os::unix::fs::symlink("a", at.join("volume/in")).unwrap();
        let open = |subpath: &str| {
            let root = path::open_host(&at.join("volume"), OFlags::PATH).unwrap();
            open_subpath("v", root, subpath)
        };
        assert!(open("").is_ok() && open("a/b").is_ok() && open("in/b").is_ok());
        for wrong in ["nope", "out", "a/../../outside", "/a"] {
            let error = open(wrong).unwrap_err().message;
            assert!(error.contains("cannot access path"), "{error}");
        }
    }
}
