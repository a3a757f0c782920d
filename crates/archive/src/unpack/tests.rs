use std::io::Write;
use std::os::unix::fs::MetadataExt;

use super::*;
use crate::{Writer, attribute};

fn unpack_below<'a>(root: &'a OwnedFd, below: &'a Path, owners: Owners) -> Unpack<'a> {
    Unpack { root: root.as_fd(), below, owners, keep_kinds: false, limits: Limits::CONTEXT }
}

fn open(place: &Path) -> OwnedFd {
    OwnedFd::from(File::open(place).expect("a directory"))
}

fn unpack(place: &Path, archive: &[u8]) -> Result<(), UnpackError> {
    unpack_below(&open(place), Path::new(""), Owners::Engine).run(archive)
}

fn entry(path: &str, kind: Kind) -> Entry {
    let mtime = Time { seconds: 1, nanoseconds: 0 };
    Entry { mode: 0o750, uid: 7, gid: 8, mtime, ..Entry::new(path, kind) }
}

fn file(path: &str) -> Entry {
    entry(path, Kind::File { size: 0 })
}

fn link(path: &str, target: &str) -> Entry {
    entry(path, Kind::Symlink { target: target.into() })
}

fn hard(path: &str, target: &str) -> Entry {
    entry(path, Kind::HardLink { target: target.into() })
}

fn archive(entries: &[(Entry, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries {
        match entry.kind {
            Kind::File { .. } => writer.file(entry, content.as_bytes()),
            _ => writer.start(entry),
        }
        .expect("memory");
    }
    writer.finish().expect("memory")
}

#[test]
fn files_links_and_directories_are_unpacked() {
    let place = tempfile::tempdir().expect("a directory");
    let plain = archive(&[
        (entry("./", Kind::Directory), ""),
        (file("a/b/file"), "one"),
        (link("link", "a/b/file"), ""),
        (hard("hard", "a/b/file"), ""),
        (file("a/b/file"), "two"),
        (hard("hard", "hard"), ""),
    ]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).expect("memory");
    unpack(place.path(), &gzip.finish().expect("memory")).expect("a context");
    let read = |name: &str| std::fs::read_to_string(place.path().join(name)).expect(name);
    assert_eq!((read("link"), read("hard")), ("two".to_owned(), "one".to_owned()));
    for name in [".", "a/b/file", "link"] {
        let stat = std::fs::symlink_metadata(place.path().join(name)).expect(name);
        assert_eq!(stat.mtime(), 1, "{name}");
    }
}

/// As on a full disk, where the writing fails and not the reading.
#[test]
fn what_is_not_whole_is_not_there_and_what_was_there_stays() {
    let place = tempfile::tempdir().expect("a directory");
    unpack(place.path(), &archive(&[(file("sub/old"), "old"), (file("sub/two"), "two")]))
        .expect("room");
    let long = "x".repeat(10_000);
    for name in ["sub/old", "sub/new", "other/new"] {
        let whole = archive(&[(file("sub/two"), "whole"), (file(name), &long)]);
        assert!(unpack(place.path(), &whole[..whole.len() - 4_000]).is_err(), "{name}");
        let mut names: Vec<_> = std::fs::read_dir(place.path().join("sub"))
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["old", "two"], "{name}");
    }
    let read = |name: &str| std::fs::read_to_string(place.path().join(name)).expect(name);
    assert_eq!((read("sub/old"), read("sub/two")), ("old".to_owned(), "whole".to_owned()));
    // a directory gives way once the file is there
    let whole = archive(&[(file("sub"), "a file")]);
    assert!(unpack(place.path(), &whole[..512]).is_err());
    assert_eq!(read("sub/old"), "old");
    unpack(place.path(), &whole).expect("room");
    assert_eq!(read("sub"), "a file");
}

#[test]
fn what_is_of_another_kind_is_replaced_or_refused() {
    let place = tempfile::tempdir().expect("a directory");
    let both = [
        (file("one"), "file"),
        (file("two/deep/file"), "file"),
        (file("one/inside"), "made a directory"),
    ];
    assert!(unpack(place.path(), &archive(&both)).is_err(), "a file is no directory by itself");
    let swap = [(entry("one", Kind::Directory), ""), (file("two"), "file")];
    unpack(place.path(), &archive(&swap)).expect("the last of a name wins");
    assert!(place.path().join("one").is_dir() && place.path().join("two").is_file());
    let root = open(place.path());
    let mut strict = unpack_below(&root, Path::new(""), Owners::Engine);
    strict.keep_kinds = true;
    for (given, message) in [
        (file("one"), "cannot overwrite directory one with non-directory"),
        (entry("two", Kind::Directory), "cannot overwrite non-directory two with directory"),
    ] {
        let error = strict.run(&archive(&[(given, "")])[..]).expect_err(message);
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn nothing_leaves_the_directory() {
    let outer = tempfile::tempdir().expect("a directory");
    let place = outer.path().join("inner");
    std::fs::create_dir(&place).expect("a directory");
    let victim = outer.path().join("victim");
    std::fs::write(&victim, "untouched").expect("a file");
    let hostile = archive(&[
        (link("up", "../"), ""),
        (file("up/victim"), "owned"),
        (file("../victim"), "owned"),
        (file("/victim"), "owned"),
        (file("a/../../victim"), "owned"),
    ]);
    unpack(&place, &hostile).expect("every name has a place inside");
    assert_eq!(std::fs::read_to_string(&victim).expect("it is there"), "untouched");
    assert_eq!(std::fs::read_to_string(place.join("victim")).expect("inside"), "owned");
    assert!(unpack(&place, &archive(&[(hard("passwd", "../victim2"), "")])).is_err());
}

#[test]
fn wrong_archives_say_what_is_wrong() {
    let place = tempfile::tempdir().expect("a directory");
    let node = entry("sda", Kind::BlockDevice { major: 8, minor: 0 });
    for (bytes, part) in [
        (b"not a tar archive, but long enough to be looked at".repeat(20), "not a tar archive"),
        (b"BZh91AY".to_vec(), "not a tar archive"),
        (archive(&[(node, "")]), "sda in the archive cannot be unpacked: it is a device"),
    ] {
        let error = unpack(place.path(), &bytes).expect_err(part);
        assert!(error.to_string().contains(part) && !error.is_ours(), "{error}");
    }
    let many: Vec<_> = (0..4).map(|index| (file(&index.to_string()), "")).collect();
    let root = open(place.path());
    let mut unpack = unpack_below(&root, Path::new(""), Owners::Engine);
    unpack.limits = Limits { members: 3, ..Limits::CONTEXT };
    let error = unpack.run(&archive(&many)[..]).expect_err("too many");
    assert!(error.to_string().contains("more than 3 members"), "{error}");
}

#[test]
fn owners_attributes_and_times_are_the_containers() {
    let place = tempfile::tempdir().expect("a directory");
    let root = open(place.path());
    let range = IdMap::new(100_000, 65_536);
    let unpack = unpack_below(&root, Path::new("etc"), Owners::Archive(Some(range)));
    let value = [&[1, 0, 0, 2, 0, 32, 0, 0][..], &[0; 12]].concat();
    let given = vec![(b"security.capability".to_vec(), value)];
    let capable = Entry { xattrs: given.clone(), ..file("new/file") };
    unpack.run(&archive(&[(capable, "text")])[..]).expect("an archive");
    let owner = |path: &str| {
        let metadata = std::fs::metadata(place.path().join(path)).expect(path);
        (metadata.uid(), metadata.gid())
    };
    assert_eq!(owner("etc/new"), (100_000, 100_000));
    assert_eq!(owner("etc/new/file"), (100_007, 100_008));
    let made = File::open(place.path().join("etc/new/file")).expect("it is there");
    let stored = attribute(made.as_fd(), &given[0].0).expect("read").expect("kept");
    assert_eq!((stored[3], &stored[20..]), (3, &100_000_u32.to_le_bytes()[..]));
    assert_eq!(crate::attributes(made.as_fd(), Some(range)).expect("read"), given);
    let error = unpack.run(&archive(&[(Entry { uid: 70_000, ..file("x") }, "")])[..]);
    assert!(error.expect_err("no such id").to_string().contains("70000"));
}
