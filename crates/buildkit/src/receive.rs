//! Files from a client: the receiver's side of the protocol of `FileSync/DiffCopy` (tonistiigi/fsutil).
//!
//! The sender walks a tree in order and tells of each entry by a STAT, with an empty one at the end. The
//! receiver asks for the content of a file by the STAT's number (REQ), which comes in pieces (DATA, an
//! empty one ends it), of several files at a time. FIN from both sides ends it all.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::moby::filesync::v1::file_sync_client::FileSyncClient;
use bulkhead_archive::{Limits, set_attributes};
use bulkhead_sys::path;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::metadata::{Ascii, MetadataKey, MetadataMap};
use tonic::{Request, Status};

use crate::session::{Session, refused};
use crate::step::Step;

/// Which files of which directory of the client's.
#[derive(Debug, Default)]
pub(crate) struct Wanted<'a> {
    /// By which name the client knows it: `context`, `dockerfile`.
    pub(crate) directory: &'a str,
    /// These alone, with what symbolic links among them lead to; empty for all.
    pub(crate) follow: Vec<String>,
    /// Patterns of .dockerignore.
    pub(crate) exclude: Vec<String>,
}

/// What has come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// Receives files into the directory `into`, and has `step` tell now and then what has come.
pub(crate) async fn receive(
    session: &Session,
    wanted: &Wanted<'_>,
    into: OwnedFd,
    step: &Step<'_>,
) -> Result<(), Status> {
    session.expect("/moby.filesync.v1.FileSync/DiffCopy", "files")?;
    let what = format!("receive the files of {}", wanted.directory);
    let (answers, outgoing) = mpsc::unbounded_channel();
    let mut request = Request::new(UnboundedReceiverStream::new(outgoing));
    *request.metadata_mut() = metadata(wanted);
    let client = FileSyncClient::new(session.channel.clone());
    let mut client = client.max_decoding_message_size(crate::LARGEST_MESSAGE);
    let opened = client.diff_copy(request).await;
    let mut incoming = opened.map_err(|status| refused(&what, &status))?.into_inner();

    let (packets, mut arriving) = mpsc::channel::<Packet>(ROOM);
    let (told, mut count) = tokio::sync::watch::channel(Received::default());
    let writing = tokio::task::spawn_blocking(move || {
        let mut writer = Writer::new(into, answers);
        while let Some(packet) = arriving.blocking_recv() {
            let is_last = writer.take(packet)?;
            told.send_replace(writer.received);
            if is_last {
                return Ok(writer.received);
            }
        }
        Err(io::Error::from(io::ErrorKind::UnexpectedEof))
    });
    let reading = async {
        while let Some(packet) = incoming.message().await? {
            // Whoever writes has said why it does not any more.
            if packets.send(packet).await.is_err() {
                break;
            }
        }
        drop(packets);
        Ok::<_, Status>(())
    };
    let telling = async {
        let mut told = Instant::now();
        while count.changed().await.is_ok() {
            let now = *count.borrow_and_update();
            if told.elapsed() >= TOLD_EVERY {
                told = Instant::now();
                step.transferred(now.bytes, false).await;
            }
        }
    };
    let (read, written, ()) = tokio::join!(reading, writing, telling);
    let written = written.map_err(|panic| Status::internal(format!("{what}: {panic}")))?;
    match (written, read) {
        (Ok(received), _) => {
            step.transferred(received.bytes, true).await;
            Ok(())
        }
        // The client's own words say more than that nothing came any more.
        (Err(error), Err(status)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(refused(&what, &status))
        }
        (Err(error), _) => Err(Status::unknown(format!("{what}: {error}"))),
    }
}

/// How often a client hears how much has come.
const TOLD_EVERY: Duration = Duration::from_millis(200);

/// Packets that may wait to be written; one is 32 KiB at most.
const ROOM: usize = 64;

fn metadata(wanted: &Wanted<'_>) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    let directory = [wanted.directory.to_owned()];
    for (key, values) in [
        ("dir-name", &directory[..]),
        ("followpaths", &wanted.follow),
        ("exclude-patterns", &wanted.exclude),
    ] {
        append(&mut metadata, key, values);
    }
    metadata
}

/// Values that are not printable ASCII are percent-encoded, all of their key, and said to be so.
fn append(metadata: &mut MetadataMap, key: &'static str, values: &[String]) {
    let is_plain = |value: &String| value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let encodes = !values.iter().all(is_plain);
    for value in values {
        let value = match encodes {
            true => {
                percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC)
                    .to_string()
            }
            false => value.clone(),
        };
        if let Ok(value) = value.parse() {
            metadata.append(key, value);
        }
    }
    if encodes && let Ok(key) = format!("{key}-encoded").parse::<MetadataKey<Ascii>>() {
        metadata.insert(key, tonic::metadata::MetadataValue::from_static("1"));
    }
}

/// Writes a tree below a directory, and answers its sender.
struct Writer {
    root: OwnedFd,
    answers: mpsc::UnboundedSender<Packet>,
    /// The number of the next STAT.
    next: u32,
    all_told: bool,
    /// Files whose content is to come, by their numbers.
    expected: BTreeMap<u32, Expected>,
    /// With what they are the same files as, which may be still to come.
    hard_links: Vec<(PathBuf, Stat)>,
    /// Their times are set at last, for what is made in them changes those.
    directories: Vec<(PathBuf, i64)>,
    received: Received,
}

struct Expected {
    path: PathBuf,
    stat: Stat,
    file: Option<File>,
    length: u64,
}

impl Writer {
    fn new(root: OwnedFd, answers: mpsc::UnboundedSender<Packet>) -> Self {
        Self {
            root,
            answers,
            next: 0,
            all_told: false,
            expected: BTreeMap::new(),
            hard_links: Vec::new(),
            directories: Vec::new(),
            received: Received::default(),
        }
    }

    /// Returns whether it was the last.
    fn take(&mut self, packet: Packet) -> io::Result<bool> {
        match packet.r#type() {
            PacketType::PacketStat => match packet.stat {
                Some(stat) => self.entry(stat)?,
                None => self.all_told = true,
            },
            PacketType::PacketData => self.data(packet.id, &packet.data)?,
            PacketType::PacketErr => {
                return Err(io::Error::other(String::from_utf8_lossy(&packet.data).into_owned()));
            }
            PacketType::PacketFin => return Ok(true),
            PacketType::PacketReq => return Err(wrong("it asks for a file")),
        }
        if self.all_told && self.expected.is_empty() {
            self.finish_tree()?;
            self.answer(PacketType::PacketFin, 0);
        }
        Ok(false)
    }

    /// What needs all files to be there.
    fn finish_tree(&mut self) -> io::Result<()> {
        for (place, stat) in std::mem::take(&mut self.hard_links) {
            let at =
                |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", stat.path));
            self.hard_link(&place, &stat.linkname).map_err(at)?;
        }
        for (path, modified) in std::mem::take(&mut self.directories).iter().rev() {
            self.set_time(path, *modified)?;
        }
        Ok(())
    }

    fn answer(&self, kind: PacketType, id: u32) {
        // A sender that has gone is noticed where its packets come from.
        let _ = self.answers.send(Packet { r#type: kind.into(), id, ..Packet::default() });
    }

    fn entry(&mut self, stat: Stat) -> io::Result<()> {
        let number = self.next;
        self.next += 1;
        self.received.entries += 1;
        if self.received.entries > Limits::CONTEXT.members {
            return Err(wrong(&format!("it has more than {} files", Limits::CONTEXT.members)));
        }
        let place = checked(&stat.path)?;
        let at = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", stat.path));
        match kind(stat.mode)? {
            FileType::Directory => {
                self.directory(&place, &stat).map_err(at)?;
                self.directories.push((place, stat.mod_time));
            }
            FileType::RegularFile if stat.linkname.is_empty() => {
                let expected = Expected { path: place, stat, file: None, length: 0 };
                self.expected.insert(number, expected);
                self.answer(PacketType::PacketReq, number);
            }
            FileType::RegularFile => self.hard_links.push((place, stat)),
            FileType::Symlink => self.symbolic_link(&place, &stat).map_err(at)?,
            // Pipes and devices of a context are nothing that COPY takes.
            _ => {}
        }
        Ok(())
    }

    fn directory(&self, place: &Path, stat: &Stat) -> io::Result<()> {
        let mode = permissions(stat.mode);
        let made = if place == Path::new(".") {
            path::open(self.root.as_fd(), place, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?
        } else {
            path::create_dir_all(self.root.as_fd(), place, Mode::from_raw_mode(0o755))?
        };
        rustix::fs::chmod(path::of_descriptor(made.as_fd()), mode)?;
        set_attributes(made.as_fd(), &attributes(stat), None)
    }

    fn hard_link(&self, place: &Path, target: &str) -> io::Result<()> {
        let (from, old) = path::open_parent(self.root.as_fd(), &checked(target)?, false)?;
        let (to, new) = path::open_parent(self.root.as_fd(), place, true)?;
        Ok(rustix::fs::linkat(&from, old, &to, new, AtFlags::empty())?)
    }

    fn symbolic_link(&self, place: &Path, stat: &Stat) -> io::Result<()> {
        let (parent, name) = path::open_parent(self.root.as_fd(), place, true)?;
        rustix::fs::symlinkat(&*stat.linkname, &parent, &name)?;
        let times = times(stat.mod_time);
        Ok(rustix::fs::utimensat(&parent, &name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn data(&mut self, number: u32, bytes: &[u8]) -> io::Result<()> {
        let Some(mut expected) = self.expected.remove(&number) else {
            return Err(wrong("it sends a file that was not asked for"));
        };
        let name = expected.stat.path.clone();
        let at = |error: io::Error| io::Error::new(error.kind(), format!("{name}: {error}"));
        let mut file = match expected.file.take() {
            Some(file) => file,
            None => self.create(&expected.path).map_err(at)?,
        };
        if bytes.is_empty() {
            return self.finish(&expected, &file).map_err(at);
        }
        self.received.bytes += bytes.len() as u64;
        if self.received.bytes > Limits::CONTEXT.bytes {
            return Err(wrong(&format!("it is larger than {} bytes", Limits::CONTEXT.bytes)));
        }
        file.write_all(bytes).map_err(at)?;
        expected.length += bytes.len() as u64;
        expected.file = Some(file);
        self.expected.insert(number, expected);
        Ok(())
    }

    fn create(&self, place: &Path) -> io::Result<File> {
        let (parent, name) = path::open_parent(self.root.as_fd(), place, true)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        Ok(File::from(rustix::fs::openat(&parent, &name, flags | OFlags::WRONLY, mode)?))
    }

    fn finish(&self, expected: &Expected, file: &File) -> io::Result<()> {
        // What cannot be read comes as an empty file, and one that grows or shrinks meanwhile as it is.
        if u64::try_from(expected.stat.size) != Ok(expected.length) {
            return Err(wrong(&format!(
                "{} bytes came of {}: it cannot be read, or was changed meanwhile",
                expected.length, expected.stat.size
            )));
        }
        rustix::fs::fchmod(file, permissions(expected.stat.mode))?;
        set_attributes(file.as_fd(), &attributes(&expected.stat), None)?;
        Ok(rustix::fs::futimens(file, &times(expected.stat.mod_time))?)
    }

    fn set_time(&self, place: &Path, modified: i64) -> io::Result<()> {
        let directory = path::open(
            self.root.as_fd(),
            place,
            OFlags::RDONLY | OFlags::DIRECTORY,
            Mode::empty(),
        )?;
        Ok(rustix::fs::futimens(&directory, &times(modified))?)
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// A path that stays below the directory it is of, component by component.
fn checked(text: &str) -> io::Result<PathBuf> {
    let mut place = PathBuf::new();
    for component in Path::new(text.trim_start_matches('/')).components() {
        match component {
            Component::Normal(name) => place.push(name),
            Component::CurDir => {}
            _ => return Err(wrong(&format!("{text:?} leads out of the directory"))),
        }
    }
    if text.contains('\0') {
        return Err(wrong(&format!("{text:?} is no path")));
    }
    match place.as_os_str().is_empty() {
        true => Ok(PathBuf::from(".")),
        false => Ok(place),
    }
}

/// What Go's `os.FileMode` says of a file's kind.
fn kind(mode: u32) -> io::Result<FileType> {
    const DIRECTORY: u32 = 1 << 31;
    const SYMLINK: u32 = 1 << 27;
    const DEVICE: u32 = 1 << 26;
    const PIPE: u32 = 1 << 25;
    const SOCKET: u32 = 1 << 24;
    const CHARACTER: u32 = 1 << 21;
    const IRREGULAR: u32 = 1 << 19;
    Ok(match mode & (DIRECTORY | SYMLINK | DEVICE | PIPE | SOCKET | CHARACTER | IRREGULAR) {
        0 => FileType::RegularFile,
        DIRECTORY => FileType::Directory,
        SYMLINK => FileType::Symlink,
        kind if kind & DEVICE != 0 => FileType::BlockDevice,
        PIPE => FileType::Fifo,
        SOCKET => FileType::Socket,
        _ => return Err(wrong(&format!("a file of an unknown kind (mode {mode:o})"))),
    })
}

/// And of its permissions.
fn permissions(mode: u32) -> Mode {
    let special = [(1 << 23, 0o4000), (1 << 22, 0o2000), (1 << 20, 0o1000)];
    let special =
        special.iter().filter(|(go, _)| mode & go != 0).map(|(_, unix)| unix).sum::<u32>();
    Mode::from_raw_mode(special | mode & 0o777)
}

fn times(modified: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: modified.div_euclid(1_000_000_000),
        tv_nsec: modified.rem_euclid(1_000_000_000),
    };
    Timestamps { last_access: time, last_modification: time }
}

fn attributes(stat: &Stat) -> Vec<(Vec<u8>, Vec<u8>)> {
    stat.xattrs.iter().map(|(name, value)| (name.clone().into_bytes(), value.clone())).collect()
}

#[cfg(test)]
mod tests;
