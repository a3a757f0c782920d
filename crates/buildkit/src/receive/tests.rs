use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;

fn stat(path: &str, mode: u32) -> Packet {
    let stat = Stat {
        path: path.to_owned(),
        mode,
        mod_time: 1_500_000_000_123_456_789,
        ..Stat::default()
    };
    Packet { r#type: PacketType::PacketStat.into(), stat: Some(stat), ..Packet::default() }
}

fn link(path: &str, mode: u32, target: &str) -> Packet {
    let mut packet = stat(path, mode);
    packet.stat.as_mut().expect("there").linkname = target.to_owned();
    packet
}

fn file(path: &str, mode: u32, size: i64) -> Packet {
    let mut packet = stat(path, mode);
    packet.stat.as_mut().expect("there").size = size;
    packet
}

fn data(id: u32, data: &str) -> Packet {
    Packet { r#type: PacketType::PacketData.into(), id, data: data.into(), ..Packet::default() }
}

fn end() -> Packet {
    Packet { r#type: PacketType::PacketStat.into(), ..Packet::default() }
}

const DIRECTORY: u32 = 1 << 31 | 0o755;
const SYMLINK: u32 = 1 << 27 | 0o777;

/// Writes packets below a directory, and returns what was answered: kinds and numbers.
fn write(place: &Path, packets: Vec<Packet>) -> io::Result<Vec<(PacketType, u32)>> {
    let root = File::open(place)?;
    let (answers, mut told) = mpsc::unbounded_channel();
    let mut writer = Writer::new(root.into(), answers);
    for packet in packets {
        writer.take(packet)?;
    }
    drop(writer);
    let mut all = Vec::new();
    while let Ok(packet) = told.try_recv() {
        all.push((packet.r#type(), packet.id));
    }
    Ok(all)
}

#[test]
fn a_tree_comes_as_it_was() {
    let place = tempfile::tempdir().expect("a directory");
    let answered = write(
        place.path(),
        vec![
            file("a", 0o640, 6),
            stat("d", DIRECTORY | 1 << 20),
            file("d/run", 0o755 | 1 << 23, 0),
            link("d/same", 0o640, "a"),
            link("l", SYMLINK, "../../etc/passwd"),
            // of two files at a time, in pieces
            data(0, "one"),
            data(2, ""),
            end(),
            data(0, "two"),
            data(0, ""),
        ],
    );
    use PacketType::{PacketFin, PacketReq};
    assert_eq!(answered.expect("is taken"), [(PacketReq, 0), (PacketReq, 2), (PacketFin, 0)]);
    let of = |name: &str| std::fs::symlink_metadata(place.path().join(name)).expect("is there");
    assert_eq!(std::fs::read(place.path().join("d/same")).expect("is there"), b"onetwo");
    assert_eq!(of("a").ino(), of("d/same").ino());
    assert_eq!(of("a").permissions().mode() & 0o7777, 0o640);
    assert_eq!(of("d/run").permissions().mode() & 0o7777, 0o4755);
    assert_eq!(of("d").permissions().mode() & 0o7777, 0o1755);
    for name in ["a", "d", "l"] {
        assert_eq!(
            (of(name).mtime(), of(name).mtime_nsec()),
            (1_500_000_000, 123_456_789),
            "{name}"
        );
    }
    let target = std::fs::read_link(place.path().join("l")).expect("a link");
    assert_eq!(target, Path::new("../../etc/passwd"));
}

#[test]
fn nothing_leaves_the_directory_and_what_is_wrong_is_said() {
    let place = tempfile::tempdir().expect("a directory");
    let inside = place.path().join("inside");
    std::fs::create_dir(&inside).expect("made");
    for (packets, part) in [
        (vec![file("../out", 0o644, 0)], "leads out"),
        (vec![file("a/../../out", 0o644, 0)], "leads out"),
        (vec![link("x", 0o644, "../../out"), end()], "leads out"),
        (vec![file("y", 0o644, 3), data(0, "ab"), data(0, "")], "2 bytes came of 3"),
        (vec![data(7, "ab")], "not asked for"),
        (vec![stat("z", 1 << 19 | 0o644)], "unknown kind"),
        (vec![file("twice", 0o644, 0), file("twice", 0o644, 0), data(0, ""), data(1, "")], "twice"),
    ] {
        let error = write(&inside, packets).expect_err(part);
        assert!(error.to_string().contains(part), "{error}");
    }
    // A link in the way leads to a place inside, as if the directory were `/`.
    let through =
        vec![link("way", SYMLINK, "../../../.."), file("way/out", 0o644, 0), data(1, ""), end()];
    write(&inside, through).expect("is taken");
    assert!(inside.join("out").exists());
    let names: Vec<_> = std::fs::read_dir(place.path()).expect("is there").collect();
    assert_eq!(names.len(), 1);
}
