use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use bulkhead_archive::Writer;
use bulkhead_types::Digest;
use proptest::prelude::*;
use rustix::fs::CWD;

use super::*;

/// A member for a table: `kind` and its data, at `path`.
fn entry(path: &str, kind: Kind) -> Entry {
    Entry {
        path: path.as_bytes().to_vec(),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Time { seconds: 1_000_000_000, nanoseconds: 5 },
        xattrs: Vec::new(),
    }
}

fn file(path: &str) -> Entry {
    entry(path, Kind::File { size: 4 })
}

fn directory(path: &str) -> Entry {
    Entry { mode: 0o755, ..entry(path, Kind::Directory) }
}

fn link(path: &str, target: &str) -> Entry {
    entry(path, Kind::Symlink { target: target.as_bytes().to_vec() })
}

fn hard(path: &str, target: &str) -> Entry {
    entry(path, Kind::HardLink { target: target.as_bytes().to_vec() })
}

/// Files hold `text`.
fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for entry in entries {
        writer.start(entry).unwrap();
        if let Kind::File { size: 4 } = entry.kind {
            writer.write_all(b"text").unwrap();
        }
    }
    writer.finish().unwrap()
}

/// `outside/victim` must come out of everything as it was.
struct Rig {
    directory: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["root", "parent", "outside"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
        }
        let rig = Self { directory };
        std::fs::write(rig.path("outside/victim"), "untouched").unwrap();
        rig
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn unpack(&self, bytes: &[u8]) -> Result<Unpacked, ImageError> {
        let open = |name: &str| OwnedFd::from(std::fs::File::open(self.path(name)).unwrap());
        unpack(bytes, open("root"), &[open("parent")])
    }

    fn entries(&self, entries: &[Entry]) -> Result<Unpacked, ImageError> {
        self.unpack(&archive(entries))
    }

    /// Whoever gets out leaves a trace here: content, mode, owner, times and neighbours.
    fn outside(&self) -> String {
        let meta = std::fs::metadata(self.path("outside/victim")).unwrap();
        let list = |name: &str| {
            let mut names: Vec<_> = std::fs::read_dir(self.path(name))
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            names.sort();
            names
        };
        format!(
            "{:?} {:o} {} {} {} {:?} {:?}",
            std::fs::read_to_string(self.path("outside/victim")),
            meta.mode(),
            meta.uid(),
            meta.mtime(),
            meta.nlink(),
            list("outside"),
            list("."),
        )
    }
}

/// The shapes of containerd's TestBreakouts: nothing may get out, whether it is refused or lands
/// inside.
#[test]
fn nothing_leaves_the_root() {
    let rig = Rig::new();
    let out = rig.path("outside").to_str().unwrap().to_owned();
    let victim = format!("{out}/victim");
    let up = "../../../../../../../../../..";
    let up_victim = format!("{up}{victim}");
    let up_out = format!("{up}{out}");
    let cases: Vec<Vec<Entry>> = vec![
        vec![file("../outside/new")],
        vec![file("a/../../outside/new")],
        vec![file(&victim)],
        vec![file(&format!("{out}/new"))],
        vec![link("l", &out), file("l/new")],
        vec![link("l", &out), file("l/victim")],
        vec![link("l", &victim), file("l")],
        vec![link("l", "../outside"), file("l/new")],
        vec![link("l", &up_out), file("l/victim")],
        vec![link("l", "/"), file(&format!("l{victim}"))],
        vec![link("l", "/.."), file("l/outside/victim")],
        vec![link("l", ".."), file("l/outside/victim")],
        vec![link("a", "b"), link("b", &out), file("a/new")],
        vec![link("a", "."), link("a/b", ".."), file("a/b/outside/victim")],
        vec![directory("a"), link("a/l", "../../outside"), file("a/l/new")],
        vec![link("l", "l"), file("l/new")],
        vec![link("a", "b"), link("b", "a"), file("a/new")],
        vec![hard("h", &victim)],
        vec![hard("h", "../outside/victim"), file("h")],
        vec![hard("h", &up_victim)],
        vec![link("l", &out), hard("h", "l/victim"), file("h")],
        vec![link("l", &victim), hard("h", "l"), file("h")],
        vec![link("l", &out), directory("l")],
        vec![link("l", &out), Entry { mode: 0o7777, uid: 7, ..directory("l/victim") }],
        vec![link("l", &victim), Entry { mode: 0o777, uid: 7, gid: 7, ..file("l") }],
        vec![link("l", &out), file("l/.wh.victim")],
        vec![link("l", &out), file("l/.wh..wh..opq")],
        vec![file(".wh..")],
        vec![file(".wh...")],
        vec![file(".wh.")],
        vec![file("../.wh.outside")],
        vec![file("../outside/.wh.victim")],
        vec![file(".wh.x/y")],
        vec![file("")],
        vec![file(".")],
        vec![file("..")],
        vec![file("/")],
        vec![file("//")],
        vec![directory("..")],
        vec![link("..", &out)],
        vec![link(".", &out), file("new")],
        vec![link("/", &out), file("new")],
        vec![hard("h", "")],
        vec![hard("h", ".")],
        vec![hard("h", "..")],
        vec![directory("d"), hard("h", "d")],
        vec![directory("d"), link("d", &out), file("d/new")],
        vec![file("d/x"), link("d", &out), file("d/new")],
        vec![file("d/x"), link("d", &out), file("d/victim")],
        vec![link("l", &out), entry("l/fifo", Kind::Fifo)],
        vec![link("l", &out), entry("l/null", Kind::CharDevice { major: 1, minor: 3 })],
        vec![link("l", &out), link("l/m", "x")],
        vec![Entry {
            xattrs: vec![(b"trusted.overlay.redirect".to_vec(), out.as_bytes().to_vec())],
            ..directory("d")
        }],
    ];
    let before = rig.outside();
    for entries in cases {
        std::fs::remove_dir_all(rig.path("root")).unwrap();
        std::fs::create_dir(rig.path("root")).unwrap();
        let result = rig.entries(&entries);
        let names: Vec<_> = entries
            .iter()
            .map(|entry| (String::from_utf8_lossy(&entry.path).into_owned(), &entry.kind))
            .collect();
        assert_eq!(rig.outside(), before, "{names:?} gave {result:?}");
        // Attributes that command overlayfs are never taken from an archive.
        let mut value = [0; 64];
        let redirect =
            rustix::fs::lgetxattr(rig.path("root/d"), "trusted.overlay.redirect", &mut value[..]);
        assert!(redirect.is_err());
    }
}

#[test]
fn hostile_members_are_refused() {
    let long = "x/".repeat(2100);
    for (entries, complaint) in [
        (vec![file("../x")], "leads out"),
        (vec![file(&"n".repeat(256))], "255 bytes"),
        (vec![file(&long)], "4,095 bytes"),
        (vec![file(".wh.")], "no name"),
        (vec![hard("h", "missing")], "does not exist"),
        (vec![directory("d"), hard("h", "d")], "hard link to a directory"),
        (vec![link("/", "x")], "layer's root"),
        (vec![file("f"), file("f/g")], "Not a directory"),
        (vec![Entry { uid: u32::MAX, ..file("f") }], "Invalid argument"),
    ] {
        let message = Rig::new().entries(&entries).expect_err(complaint).to_string();
        assert!(message.contains(complaint), "{message:?} should say {complaint:?}");
    }
    let whole = archive(&[file("f")]);
    for cut in [100, 512, 514, 700] {
        let message = Rig::new().unpack(&whole[..cut]).expect_err("cut off").to_string();
        assert!(message.contains("cut off"), "{message}");
    }
    assert!(Rig::new().unpack(b"this is no archive, and long enough to see it").is_err());
}

#[test]
fn members_arrive_with_everything_they_have() {
    let rig = Rig::new();
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
    rig.entries(&[
        Entry { mode: 0o1777, ..directory("tmp") },
        Entry { uid: 33, gid: 34, mode: 0o4755, ..file("tmp/suid") },
        Entry {
            xattrs: vec![(b"security.capability".to_vec(), capability.clone())],
            ..file("ping")
        },
        Entry { xattrs: vec![(b"user.a".to_vec(), b"b".to_vec())], ..file("attributed") },
        Entry { uid: 5, ..link("dangling", "nowhere") },
        hard("twin", "tmp/suid"),
        entry("null", Kind::CharDevice { major: 1, minor: 3 }),
        entry("fifo", Kind::Fifo),
    ])
    .unwrap();
    let meta = |name: &str| std::fs::symlink_metadata(rig.path("root").join(name)).unwrap();
    assert_eq!(meta("tmp").mode() & 0o7777, 0o1777);
    assert_eq!((meta("tmp").mtime(), meta("tmp").mtime_nsec()), (1_000_000_000, 5));
    let suid = meta("tmp/suid");
    assert_eq!((suid.uid(), suid.gid(), suid.mode() & 0o7777, suid.nlink()), (33, 34, 0o4755, 2));
    assert_eq!(meta("twin").ino(), suid.ino());
    assert_eq!((meta("dangling").uid(), meta("dangling").mtime()), (5, 1_000_000_000));
    assert_eq!(meta("null").rdev(), makedev(1, 3));
    assert_eq!(meta("fifo").mtime_nsec(), 5);
    let attribute = |name: &str, key: &str| {
        let mut value = [0; 64];
        let length =
            rustix::fs::getxattr(rig.path("root").join(name), key, &mut value[..]).unwrap();
        value[..length].to_vec()
    };
    assert_eq!(attribute("attributed", "user.a"), b"b");
    assert_eq!(attribute("ping", "security.capability"), capability);
}

#[test]
fn later_members_replace_earlier_ones() {
    let rig = Rig::new();
    rig.entries(&[
        file("a"),
        directory("a"),
        file("a/inside"),
        file("b/c/d"),
        file("b"),
        link("l", "b"),
        file("l"),
        file(".wh.w"),
        file("w/inside"),
        file("kept"),
        file(".wh.kept"),
        directory("opaque"),
        file(".wh.opaque"),
        file(".wh.gone"),
        file(".wh.gone"),
        file("marked/.wh..wh..opq"),
    ])
    .unwrap();
    let kind = |name: &str| {
        let meta = std::fs::symlink_metadata(rig.path("root").join(name)).unwrap();
        FileType::from_raw_mode(meta.mode())
    };
    for (name, expected) in [
        ("a", FileType::Directory),
        ("a/inside", FileType::RegularFile),
        ("b", FileType::RegularFile),
        ("l", FileType::RegularFile),
        ("w", FileType::Directory),
        ("kept", FileType::RegularFile),
        ("opaque", FileType::Directory),
        ("gone", FileType::CharacterDevice),
    ] {
        assert_eq!(kind(name), expected, "{name}");
    }
    for (name, expected) in
        [("a", true), ("w", true), ("opaque", true), ("marked", true), ("marked/..", false)]
    {
        let directory = std::fs::File::open(rig.path("root").join(name)).unwrap();
        assert_eq!(metadata::is_opaque(directory.as_fd()).unwrap(), expected, "{name}");
    }
}

#[test]
fn what_only_parents_have_is_copied_up() {
    let rig = Rig::new();
    std::fs::create_dir(rig.path("parent/private")).unwrap();
    std::fs::write(rig.path("parent/private/original"), "shared").unwrap();
    let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o700);
    std::fs::set_permissions(rig.path("parent/private"), mode).unwrap();
    let unpacked = rig.entries(&[hard("copy", "private/original"), file("private/new")]).unwrap();
    assert_eq!(unpacked.size, 6 + 4);
    assert_eq!(std::fs::read_to_string(rig.path("root/copy")).unwrap(), "shared");
    let (copy, original) = (rig.path("root/copy"), rig.path("parent/private/original"));
    let inode = |path| std::fs::metadata(path).unwrap().ino();
    assert_ne!(inode(copy), inode(original), "a write must not reach the layer below");
    // a directory that the archive only implies looks as it does below
    assert_eq!(std::fs::metadata(rig.path("root/private")).unwrap().mode() & 0o777, 0o700);
    let whiteout = (rig.path("parent/hidden"), makedev(0, 0));
    rustix::fs::mknodat(CWD, &whiteout.0, FileType::CharacterDevice, Mode::empty(), whiteout.1)
        .unwrap();
    assert!(rig.entries(&[hard("x", "hidden")]).is_err());
}

#[test]
fn every_compression_gives_the_same_layer() {
    let plain = archive(&[directory("d"), file("d/f")]);
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let members = [gzip(&plain[..700]), gzip(&plain[700..])].concat();
    let zstd = zstd::stream::encode_all(&plain[..], 3).unwrap();
    let padded = [&gzip(&plain)[..], b"padding"].concat();
    for bytes in [&plain, &gzip(&plain), &members, &zstd, &padded] {
        let unpacked = Rig::new().unpack(bytes).unwrap();
        assert_eq!(unpacked.diff_id, Digest::of(&plain));
    }
    let junk = [&plain[..], &[9; 100_000]].concat();
    assert_eq!(Rig::new().unpack(&junk).unwrap().diff_id, Digest::of(&junk));
}

#[test]
fn bombs_are_stopped() {
    // 3 GiB of zeros in 3 MiB: gzip of one MiB of zeros, again and again
    let zeros = vec![0; 1 << 20];
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&zeros).unwrap();
    let member = encoder.finish().unwrap();
    let size = 3 << 30;
    let mut head = Writer::new(Vec::new());
    head.start(&entry("../bomb", Kind::Directory)).unwrap();
    let mut header = Writer::new(Vec::new());
    header.start(&entry("bomb", Kind::Fifo)).unwrap();
    let archive = header.finish().unwrap();
    let mut start = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    start.write_all(&archive).unwrap(); // ends with two blocks of zeros: the rest is junk
    let mut bytes = start.finish().unwrap();
    for _ in 0..size / zeros.len() {
        bytes.extend_from_slice(&member);
    }
    let message = Rig::new().unpack(&bytes).expect_err("a bomb").to_string();
    assert!(message.contains("200 times"), "{message}");
}

fn component() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-c]",
        Just("..".to_owned()),
        Just(".".to_owned()),
        Just(".wh.a".to_owned()),
        Just(".wh..wh..opq".to_owned()),
        "[.a/]{0,3}",
    ]
}

fn path() -> impl Strategy<Value = String> {
    proptest::collection::vec(component(), 1..4).prop_map(|parts| parts.join("/"))
}

fn member() -> impl Strategy<Value = Entry> {
    prop_oneof![
        path().prop_map(|path| file(&path)),
        path().prop_map(|path| directory(&path)),
        (path(), path()).prop_map(|(path, target)| link(&path, &target)),
        (path(), path()).prop_map(|(path, target)| link(&path, &format!("../outside/{target}"))),
        (path(), path()).prop_map(|(path, target)| hard(&path, &target)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_sequence_of_members_leaves_the_root(
        members in proptest::collection::vec(member(), 1..12),
    ) {
        let rig = Rig::new();
        let before = rig.outside();
        let _ = rig.entries(&members);
        prop_assert_eq!(rig.outside(), before);
    }

    #[test]
    fn clean_names_stay_below(path in proptest::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(cleaned) = clean(&path) {
            prop_assert!(!cleaned.starts_with(b"/"));
            for part in cleaned.split(|byte| *byte == b'/') {
                prop_assert!(cleaned.is_empty() || !matches!(part, b"" | b"." | b".."));
            }
        }
    }
}
