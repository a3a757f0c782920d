use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use bulkhead_sys::process::{self, CLONE_NEWUSER};
use bulkhead_types::IdMap;
use rustix::fs::{Mode, OFlags, XattrFlags};

use super::*;
use crate::{Content, Layer};

const RANGE: IdMap = IdMap::new(1_000_000, 65_536);

/// A user namespace with [`RANGE`], held by nothing but its descriptor.
fn user_namespace() -> OwnedFd {
    let (read, mut write) = io::pipe().expect("a pipe");
    let child = process::clone3(CLONE_NEWUSER, None, || {
        let mut byte = [0];
        let _ = rustix::io::read(&read, &mut byte); // until the parent is done
        0
    })
    .expect("root can make user namespaces");
    let map = format!("0 {} {}", RANGE.first, RANGE.size);
    std::fs::write(format!("/proc/{}/uid_map", child.pid), &map).expect("write the uid map");
    std::fs::write(format!("/proc/{}/gid_map", child.pid), &map).expect("write the gid map");
    let namespace = File::open(format!("/proc/{}/ns/user", child.pid)).expect("the namespace");
    write.write_all(b"x").expect("the child waits");
    let options = rustix::process::WaitIdOptions::EXITED;
    rustix::process::waitid(rustix::process::WaitId::PidFd(child.pidfd.as_fd()), options)
        .expect("wait for the child");
    namespace.into()
}

/// Runs `work` as root of `namespace`; `false` if it fails.
fn as_root_of(namespace: &OwnedFd, work: impl FnOnce() -> rustix::io::Result<()>) -> bool {
    let child = process::clone3(0, None, || {
        let inside = || -> rustix::io::Result<()> {
            process::setns(namespace.as_fd(), CLONE_NEWUSER)?;
            process::set_identity(0, 0, &[])?;
            work()
        };
        match inside() {
            Ok(()) => 0,
            Err(error) => error.raw_os_error(),
        }
    })
    .expect("a child");
    let options = rustix::process::WaitIdOptions::EXITED;
    let pidfd = rustix::process::WaitId::PidFd(child.pidfd.as_fd());
    let status = rustix::process::waitid(pidfd, options).expect("wait").expect("it has ended");
    status.exit_status() == Some(0)
}

struct Rig {
    directory: tempfile::TempDir,
    content: Content,
}

impl Rig {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let content = Content::open(&directory.path().join("content")).expect("a store");
        for name in ["upper", "work"] {
            std::fs::create_dir(directory.path().join(name)).expect("a directory");
        }
        Self { directory, content }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn fd(&self, name: &str) -> OwnedFd {
        File::open(self.path(name)).expect("a directory").into()
    }

    /// Makes a layer out of a directory that `fill` fills.
    fn layer(&self, fill: impl FnOnce(&Path)) -> Layer {
        let source = tempfile::tempdir_in(self.directory.path()).expect("a directory");
        fill(source.path());
        let source = File::open(source.path()).expect("it is there");
        self.content.commit_upper(source.as_fd(), None).expect("store").expect("a change")
    }

    fn mount(&self, layers: &[&Layer], mapping: Option<&OwnedFd>) -> OwnedFd {
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| self.content.layer(layer.diff_id).expect("it is unpacked"))
            .collect();
        let (upper, work) = (self.fd("upper"), self.fd("work"));
        mount_overlay(&layers, upper.as_fd(), work.as_fd(), mapping.map(AsFd::as_fd))
            .expect("mount")
    }
}

fn read(mount: &OwnedFd, name: &str) -> Option<String> {
    let file = rustix::fs::openat(mount, name, OFlags::RDONLY, Mode::empty()).ok()?;
    let mut text = String::new();
    File::from(file).read_to_string(&mut text).expect("text");
    Some(text)
}

fn names(mount: &OwnedFd, name: &str) -> Vec<String> {
    let directory = directory::open(mount.as_fd(), name).expect("a directory");
    let names = directory::names(directory.as_fd()).expect("a listing");
    names.into_iter().map(|name| name.into_string().expect("text")).collect()
}

#[test]
fn files_keep_their_owners_inside_a_user_namespace() {
    let rig = Rig::new();
    let layer = rig.layer(|root| {
        std::fs::write(root.join("root-owned"), "a").unwrap();
        std::fs::write(root.join("www-owned"), "b").unwrap();
        std::os::unix::fs::chown(root.join("www-owned"), Some(33), Some(33)).unwrap();
        std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o700)).unwrap();
    });
    let namespace = user_namespace();
    let mount = rig.mount(&[&layer], Some(&namespace));
    let root = rustix::fs::fstat(&mount).unwrap();
    assert_eq!((root.st_uid, root.st_mode & 0o7777), (RANGE.first, 0o755));
    let inside = as_root_of(&namespace, || {
        let owner = |name: &str| {
            rustix::fs::statat(&mount, name, rustix::fs::AtFlags::empty()).map(|stat| stat.st_uid)
        };
        if owner("root-owned")? != 0 || owner("www-owned")? != 33 {
            return Err(Errno::PERM);
        }
        let flags = OFlags::WRONLY | OFlags::CREATE;
        rustix::fs::openat(&mount, "new", flags, Mode::from_raw_mode(0o644))?;
        // copied up with its owner
        let file = rustix::fs::openat(&mount, "www-owned", OFlags::WRONLY, Mode::empty())?;
        rustix::io::write(&file, b"B")?;
        rustix::fs::unlinkat(&mount, "root-owned", rustix::fs::AtFlags::empty())
    });
    assert!(inside, "the container's root can use its files");
    let owner = |name: &str| std::fs::metadata(rig.path("upper").join(name)).unwrap().uid();
    assert_eq!(owner("new"), RANGE.first, "root inside is nobody special outside");
    assert_eq!(owner("www-owned"), RANGE.first + 33);
    assert_eq!(
        std::fs::metadata(rig.content_path(&layer).join("www-owned")).unwrap().uid(),
        33,
        "the layer itself is unchanged"
    );

    // What the container did becomes a layer with the ids it saw.
    let upper = rig.fd("upper");
    let second = rig.content.commit_upper(upper.as_fd(), Some(RANGE)).unwrap().unwrap();
    let tree = rig.content_path(&second);
    assert_eq!(std::fs::metadata(tree.join("new")).unwrap().uid(), 0);
    assert_eq!(std::fs::metadata(tree.join("www-owned")).unwrap().uid(), 33);
    assert_eq!(std::fs::metadata(&tree).unwrap().mode() & 0o7777, 0o755);
    let whiteout = std::fs::symlink_metadata(tree.join("root-owned")).unwrap();
    assert_eq!((whiteout.mode() & 0o170_000, whiteout.rdev()), (0o020_000, 0));
}

impl Rig {
    fn content_path(&self, layer: &Layer) -> PathBuf {
        self.path("content/layers").join(layer.diff_id.hex()).join("fs")
    }
}

fn changes(rig: &Rig) -> (Layer, Layer) {
    let below = rig.layer(|root| {
        std::fs::create_dir(root.join("etc")).unwrap();
        std::fs::write(root.join("etc/old"), "old").unwrap();
        std::fs::write(root.join("keep"), "below").unwrap();
        std::fs::write(root.join("gone"), "x").unwrap();
        symlink("keep", root.join("link")).unwrap();
    });
    let above = rig.layer(|root| {
        std::fs::create_dir(root.join("etc")).unwrap();
        rustix::fs::setxattr(root.join("etc"), metadata::OPAQUE, b"y", XattrFlags::empty())
            .unwrap();
        std::fs::write(root.join("etc/new"), "new").unwrap();
        std::fs::hard_link(root.join("etc/new"), root.join("etc/same")).unwrap();
        let device = rustix::fs::makedev(0, 0);
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(CWD, root.join("gone"), kind, Mode::empty(), device).unwrap();
    });
    (below, above)
}

fn check_changes(mount: &OwnedFd) {
    assert_eq!(names(mount, "."), ["etc", "keep", "link"]);
    assert_eq!(names(mount, "etc"), ["new", "same"]);
    assert_eq!(read(mount, "link").as_deref(), Some("below"));
    assert_eq!(read(mount, "etc/same").as_deref(), Some("new"));
}

#[test]
fn upper_layers_hide_what_they_delete() {
    let rig = Rig::new();
    let (below, above) = changes(&rig);
    check_changes(&rig.mount(&[&below, &above], None));
}

#[test]
fn kernels_without_layers_by_descriptor_mount_by_path() {
    let rig = Rig::new();
    let (below, above) = changes(&rig);
    let namespace = user_namespace();
    let lower = |layer: &Layer| {
        let layer = rig.content.layer(layer.diff_id).unwrap();
        clone_mapped(layer.as_fd(), Some(namespace.as_fd())).unwrap()
    };
    let parts = Parts {
        upper: rig.fd("upper"),
        work: rig.fd("work"),
        lower: Vec::new(),
        clones: vec![lower(&above), lower(&below)],
    };
    let mount = by_path(parts).expect("mount in a namespace of its own");
    check_changes(&mount);
    let stat = rustix::fs::statat(&mount, "keep", rustix::fs::AtFlags::empty()).unwrap();
    assert_eq!(stat.st_uid, RANGE.first);
}

#[test]
fn kernels_with_detached_layers_mount_by_descriptor() {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    if (numbers.next(), numbers.next()) < (Some(6), Some(15)) {
        return bulkhead_sys::testing::skip("Linux before 6.15");
    }
    let rig = Rig::new();
    let (below, above) = changes(&rig);
    let namespace = user_namespace();
    let clone = |layer: &Layer| {
        let layer = rig.content.layer(layer.diff_id).unwrap();
        clone_mapped(layer.as_fd(), Some(namespace.as_fd())).unwrap()
    };
    let clones = vec![clone(&above), clone(&below)];
    let lower = clones.iter().map(|clone| directory::open(clone.as_fd(), ".").unwrap()).collect();
    let parts = Parts { upper: rig.fd("upper"), work: rig.fd("work"), lower, clones };
    check_changes(&by_descriptor(&parts).expect("mount"));
}

#[test]
fn an_image_without_layers_is_an_empty_root() {
    let rig = Rig::new();
    let namespace = user_namespace();
    let mount = rig.mount(&[], Some(&namespace));
    assert!(names(&mount, ".").is_empty());
    assert_eq!(rustix::fs::fstat(&mount).unwrap().st_uid, RANGE.first);
    assert!(as_root_of(&namespace, || { rustix::fs::mkdirat(&mount, "made", Mode::RWXU) }));
    assert_eq!(std::fs::metadata(rig.path("upper/made")).unwrap().uid(), RANGE.first);
}

#[test]
fn an_opaque_root_hides_all_layers_below() {
    let rig = Rig::new();
    let below = rig.layer(|root| std::fs::write(root.join("below"), "x").unwrap());
    let above = rig.layer(|root| {
        rustix::fs::setxattr(root, metadata::OPAQUE, b"y", XattrFlags::empty()).unwrap();
        std::fs::write(root.join("above"), "x").unwrap();
    });
    assert_eq!(names(&rig.mount(&[&below, &above], None), "."), ["above"]);
}

#[test]
fn a_second_mount_keeps_the_root_that_the_container_changed() {
    let rig = Rig::new();
    let layer = rig.layer(|root| std::fs::write(root.join("a"), "x").unwrap());
    let mount = rig.mount(&[&layer], None);
    rustix::fs::mkdirat(&mount, "made", Mode::RWXU).unwrap();
    rustix::fs::fchmod(directory::open(mount.as_fd(), ".").unwrap(), Mode::from_raw_mode(0o700))
        .unwrap();
    drop(mount);
    let mount = rig.mount(&[&layer], None);
    assert_eq!(rustix::fs::fstat(&mount).unwrap().st_mode & 0o7777, 0o700);
    assert_eq!(names(&mount, "."), ["a", "made"]);
}

#[test]
fn nothing_changed_is_no_layer_and_equal_changes_are_one() {
    let rig = Rig::new();
    assert_eq!(rig.content.commit_upper(rig.fd("upper").as_fd(), None).unwrap(), None);
    let (first, _) = changes(&rig);
    let mut blob = rig.content.blob(first.descriptor.digest).unwrap();
    assert_eq!(rig.content.import_layer(&mut blob).unwrap(), first);
    assert_eq!(rig.content.layer_size(first.diff_id).unwrap(), 3 + 5 + 1);
    rig.content.delete_layer(first.diff_id).unwrap();
    assert!(!rig.content.has_layer(first.diff_id));
    rig.content.unpack(&first.descriptor, first.diff_id, &[]).unwrap();
    assert!(rig.content.has_layer(first.diff_id));
    rig.content.sweep(&|_| false).unwrap();
    assert!(
        !rig.content.has_layer(first.diff_id) && !rig.content.contains(first.descriptor.digest)
    );
    assert_eq!(std::fs::read_dir(rig.path("content/tmp")).unwrap().count(), 0);
}

#[test]
fn what_the_probe_says_is_true() {
    let rig = tempfile::tempdir().unwrap();
    let scratch = OwnedFd::from(File::open(rig.path()).unwrap());
    let users = user_namespace();
    let can = can_map_owners(scratch.as_fd(), users.as_fd()).unwrap();
    let [layer, upper, work] =
        ["layer", "upper", "work"].map(|name| directory::open(scratch.as_fd(), name).unwrap());
    let mounted = mount_overlay(&[layer], upper.as_fd(), work.as_fd(), Some(users.as_fd()));
    assert_eq!(mounted.is_ok(), can);
}
