//! What a container is made from, opened on the host before anything is cloned.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use bulkhead_runtime::FdIndex;
use bulkhead_runtime::cgroup::Layout;
use bulkhead_runtime::mount_options::{Bind, MountOptions};
use bulkhead_runtime::plan::BundleSources;
use bulkhead_sys::mount::{Attributes, Depth, change_attributes, set_id_mapping};
use bulkhead_sys::path;
use bulkhead_types::oci::{self, Config};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::error::{Error, Result};
use crate::hooks::HookFiles;
use crate::{devices, id_maps};

/// Descriptors, and which of them is what.
#[derive(Debug, Default)]
pub struct Opened {
    pub sources: BundleSources,
    pub descriptors: Vec<OwnedFd>,
}

impl Opened {
    /// Opens the root, the sources of bind mounts and the namespaces that are joined.
    pub fn open(config: &Config, bundle: &Path) -> Result<Self> {
        let mut opened = Self::default();
        opened.open_root(config, bundle)?;
        for (index, mount) in config.mounts.iter().enumerate() {
            opened.open_mount(config, mount, index, bundle)?;
        }
        opened.make_devices(config)?;
        for namespace in config.linux.iter().flat_map(|linux| &linux.namespaces) {
            if namespace.path.is_empty() {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let (path, name) = (&namespace.path, namespace.kind.name());
            let fd = rustix::fs::open(path.as_str(), flags, Mode::empty()).map_err(
                Error::system(format!("open the {name} namespace {path} of config.json")),
            )?;
            let index = opened.keep(fd)?;
            opened.sources.namespaces.push((namespace.kind, index));
        }
        Ok(opened)
    }

    pub fn keep(&mut self, fd: OwnedFd) -> Result<FdIndex> {
        let index = u16::try_from(self.descriptors.len())
            .map_err(|_| Error::Config("there are more than 65,535 mounts".to_owned()))?;
        self.descriptors.push(fd);
        Ok(FdIndex(index))
    }

    /// Passes the files for hooks' output on to the child, if it has hooks of the host to run.
    pub fn keep_hook_files(&mut self, config: &Config, files: &HookFiles) -> Result<()> {
        if config.hooks.as_ref().is_none_or(|hooks| hooks.create_container.is_empty()) {
            return Ok(());
        }
        let mut keep = |file: &Option<File>| {
            let Some(file) = file else { return Ok(None) };
            let copy = file.try_clone().map_err(Error::system("copy a descriptor"))?;
            self.keep(copy.into()).map(Some)
        };
        let (stdout, stderr) = (keep(&files.stdout)?, keep(&files.stderr)?);
        (self.sources.hook_stdout, self.sources.hook_stderr) = (stdout, stderr);
        Ok(())
    }

    /// Clones the mounts of a container's own v1 groups, by the name of the hierarchy's directory.
    /// `None` where that takes privileges that are not there, or there are no groups.
    pub fn open_groups(
        &mut self,
        layout: &Layout,
        paths: &BTreeMap<String, String>,
    ) -> Result<Option<Vec<(String, FdIndex)>>> {
        let mut groups = Vec::new();
        for hierarchy in &layout.v1 {
            let names = &hierarchy.controllers;
            let Some(path) = names.iter().find_map(|name| paths.get(name)) else { continue };
            let failed = |error: std::io::Error| Error::System {
                what: format!("open the cgroup {path}"),
                cause: error,
            };
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let fd = path::open_host(Path::new(path), flags).map_err(failed)?;
            let name = names.join(",");
            let name = name.strip_prefix("name=").unwrap_or(&name).to_owned();
            match clone(fd.as_fd(), false) {
                Ok(tree) => groups.push((name, self.keep(tree)?)),
                Err(Errno::PERM) => return Ok(None),
                Err(errno) => return Err(failed(errno.into())),
            }
        }
        Ok(Some(groups).filter(|groups| !groups.is_empty()))
    }

    fn open_root(&mut self, config: &Config, bundle: &Path) -> Result<()> {
        let root = config.root.as_ref().map(|root| &root.path);
        let root = root.filter(|path| !path.as_os_str().is_empty()).ok_or_else(|| {
            Error::Config("it has no root.path, where the container's files are".to_owned())
        })?;
        let root = bundle.join(root);
        let failed = |error: std::io::Error| Error::System {
            what: format!("open the root file system {}", root.display()),
            cause: error,
        };
        let fd = path::open_host(&root, OFlags::PATH | OFlags::DIRECTORY).map_err(failed)?;
        match clone(fd.as_fd(), true) {
            Ok(tree) => self.sources.rootfs = Some(self.keep(tree)?),
            // without privileges the child does it, in its own mount namespace
            Err(Errno::PERM) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
        self.sources.rootfs_path = root;
        Ok(())
    }

    fn open_mount(
        &mut self,
        config: &Config,
        mount: &oci::Mount,
        index: usize,
        bundle: &Path,
    ) -> Result<()> {
        let options = MountOptions::parse(&mount.options)
            .map_err(|error| Error::Config(error.to_string()))?;
        if options.bind.is_none() && mount.kind != "bind" {
            return Ok(());
        }
        let source = bundle.join(&mount.source);
        let failed = |error: std::io::Error| {
            let to = &mount.destination;
            let what = format!("error mounting {:?} to rootfs at {to:?}: open it", mount.source);
            Error::System { what, cause: error }
        };
        let no_follow = if options.source_no_follow { OFlags::NOFOLLOW } else { OFlags::empty() };
        let fd = path::open_host(&source, OFlags::PATH | no_follow).map_err(failed)?;
        let kind = FileType::from_raw_mode(
            rustix::fs::fstat(&fd).map_err(|errno| failed(errno.into()))?.st_mode,
        );
        if options.copy_symlink && kind == FileType::Symlink {
            let target = rustix::fs::readlinkat(&fd, c"", Vec::new());
            let target = target.map_err(|errno| failed(errno.into()))?;
            self.sources.links.insert(index, target.to_string_lossy().into_owned());
            return Ok(());
        }
        let tree = match clone(fd.as_fd(), options.bind == Some(Bind::Recursive)) {
            Ok(tree) => tree,
            // the child does it by the path; relative ones are the bundle's
            Err(Errno::PERM) => return Ok(()),
            Err(errno) => return Err(failed(errno.into())),
        };
        change(&tree, &options).map_err(|errno| failed(errno.into()))?;
        self.map_owners(config, mount, &options, &tree)?;
        let place = self.keep(tree)?;
        self.sources.binds.insert(index, place);
        Ok(())
    }

    /// Makes the device nodes that a user namespace cannot make, where the host's own of the same
    /// path are not what is wanted.
    fn make_devices(&mut self, config: &Config) -> Result<()> {
        for (path, node) in devices::make(config)? {
            let node = self.keep(node)?;
            self.sources.devices.insert(path, node);
        }
        Ok(())
    }

    /// Maps the owners of files by the mount's own mappings, or with `idmap` alone by the
    /// container's (config.md, "Mounts").
    fn map_owners(
        &self,
        config: &Config,
        mount: &oci::Mount,
        options: &MountOptions,
        tree: &OwnedFd,
    ) -> Result<()> {
        let mut maps = (&mount.uid_mappings, &mount.gid_mappings);
        if maps.0.is_empty() && maps.1.is_empty() {
            match (&config.linux, options.id_map) {
                (_, None) => return Ok(()),
                (Some(linux), Some(_)) if !linux.uid_mappings.is_empty() => {
                    maps = (&linux.uid_mappings, &linux.gid_mappings);
                }
                _ => {
                    let text = format!(
                        "the mount on {:?} is to be id-mapped, but neither it nor linux has \
                         uidMappings and gidMappings",
                        mount.destination
                    );
                    return Err(Error::Config(text));
                }
            }
        }
        let namespace = id_maps::namespace(maps.0, maps.1)?;
        let depth = if options.id_map == Some(true) { Depth::Tree } else { Depth::One };
        set_id_mapping(tree.as_fd(), depth, namespace.as_fd()).map_err(|errno| {
            let source = &mount.source;
            let what = format!("map the owners of {source} (its file system may not know how)");
            Error::System { what, cause: errno.into() }
        })
    }
}

/// A detached clone of the mount, and with `recursive` of those below it.
pub fn clone(source: impl AsFd, recursive: bool) -> std::result::Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    open_tree(source, c"", flags)
}

fn change(tree: &OwnedFd, options: &MountOptions) -> std::result::Result<(), Errno> {
    let none = Attributes::default();
    for (depth, clear, set) in [
        (Depth::Tree, options.recursive_clear, options.recursive_set),
        (Depth::One, options.clear, options.set),
    ] {
        if (clear, set) != (none, none) {
            change_attributes(tree.as_fd(), depth, clear, set)?;
        }
    }
    Ok(())
}

/// The bundle's directory and the text of its `config.json`.
pub fn read_bundle(bundle: Option<PathBuf>, file: Option<PathBuf>) -> Result<(PathBuf, Vec<u8>)> {
    let bundle = bundle.unwrap_or_else(|| PathBuf::from("."));
    // what the record holds must mean the same in any directory
    let bundle = std::fs::canonicalize(&bundle)
        .map_err(Error::system(format!("open the bundle {}", bundle.display())))?;
    let file = file.unwrap_or_else(|| bundle.join("config.json"));
    let text = std::fs::read(&file).map_err(|cause| match cause.kind() {
        std::io::ErrorKind::NotFound => Error::Refused(format!(
            "JSON specification file {} not found: make one with `bulkhead oci spec`",
            file.display()
        )),
        _ => Error::System { what: format!("read {}", file.display()), cause },
    })?;
    Ok((bundle, text))
}
