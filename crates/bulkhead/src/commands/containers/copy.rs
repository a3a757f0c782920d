//! `cp`: files into containers and out of them.

use std::ffi::OsStr;
use std::io::{IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bulkhead_archive::{Kind, Limits, Owners, Reader, Unpack, Writer};
use clap::Args;
use hyper::Method;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use serde_json::Value;
use tokio_util::io::{ReaderStream, StreamReader, SyncIoBridge};

use crate::client::{Client, body_stream, encode};
use crate::commands::transfer::{Meter, Metered};
use crate::failure::Failure;

#[derive(Debug, Args)]
pub struct CopyArguments {
    /// Make what is copied belong to the container's user
    #[arg(short, long)]
    archive: bool,
    /// Copy what a symbolic link leads to, and not the link
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// A path, CONTAINER:PATH, or - for an archive on standard input
    source: String,
    /// CONTAINER:PATH, a path, or - for an archive on standard output
    destination: String,
}

/// One end of a copy.
#[derive(Debug, PartialEq, Eq)]
enum End<'a> {
    Container(&'a str, &'a str),
    Here(&'a str),
}

impl<'a> End<'a> {
    /// What comes before a colon is a container, unless it looks like a path (as for scp(1)).
    fn read(text: &'a str) -> Self {
        match text.split_once(':') {
            Some((container, path))
                if !text.starts_with('/')
                    && !container.starts_with('.')
                    && !container.is_empty() =>
            {
                Self::Container(container, path)
            }
            _ => Self::Here(text),
        }
    }
}

pub async fn copy(client: &Client, arguments: CopyArguments) -> Result<(), Failure> {
    for (end, text) in [("source", &arguments.source), ("destination", &arguments.destination)] {
        if text.is_empty() {
            return Err(Failure::new(format!("{end} can not be empty")));
        }
    }
    match (End::read(&arguments.source), End::read(&arguments.destination)) {
        (End::Container(container, path), End::Here(to)) => {
            out(client, container, path, to, &arguments).await
        }
        (End::Here(from), End::Container(container, path)) => {
            into(client, from, container, path, &arguments).await
        }
        (End::Container(..), End::Container(..)) => {
            Err(Failure::new("copying between containers is not supported"))
        }
        (End::Here(_), End::Here(_)) => {
            Err(Failure::new("must specify at least one container source"))
        }
    }
}

/// What one end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Missing,
    Directory,
    Other,
}

/// Where the members of an archive go, and what the first part of their names becomes.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    directory: PathBuf,
    /// `None` leaves the names as they are.
    name: Option<Vec<u8>>,
}

/// The rules of `docker cp` (moby: pkg/archive/copy.go, `PrepareArchiveCopy`).
fn plan(source: Is, to: &Path, destination: Is) -> Result<Plan, Failure> {
    let renamed = || {
        let trimmed = trim(to.as_os_str().as_bytes());
        let (parent, name) = match trimmed.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&trimmed[..=slash], &trimmed[slash + 1..]),
            None => (&b"."[..], trimmed),
        };
        Plan {
            directory: Path::new(OsStr::from_bytes(parent)).to_owned(),
            name: Some(name.to_vec()),
        }
    };
    match (destination, source) {
        (Is::Directory, _) => Ok(Plan { directory: to.to_owned(), name: None }),
        (Is::Other, Is::Directory) => Err(Failure::new(format!(
            "cannot copy directory: {} is a file, and no directory",
            to.display()
        ))),
        (Is::Missing, Is::Other | Is::Missing) if to.as_os_str().as_bytes().ends_with(b"/") => {
            Err(Failure::new(format!("no such directory: {}", to.display())))
        }
        _ => Ok(renamed()),
    }
}

/// Without slashes, or `/.`, at the end.
fn trim(path: &[u8]) -> &[u8] {
    let mut path = path;
    while let Some(shorter) = path
        .strip_suffix(b"/")
        .or_else(|| path.strip_suffix(b"/."))
        .filter(|shorter| !shorter.is_empty())
    {
        path = shorter;
    }
    path
}

/// Copies an archive with another first part in its members' names; its end is written too.
fn rename(from: impl Read, to: impl Write, name: &[u8]) -> std::io::Result<()> {
    let mut reader = Reader::plain(from, Limits::COPY);
    let mut writer = Writer::new(to);
    // the root's own name is empty, and a slash is what follows it
    let renamed = |path: &[u8]| {
        let rest = path.iter().position(|byte| *byte == b'/').map_or(&b""[..], |at| &path[at..]);
        [name, rest].concat()
    };
    while let Some(mut entry) = reader.next_entry()? {
        entry.path = renamed(&entry.path);
        if let Kind::HardLink { target } = &mut entry.kind {
            *target = renamed(target);
        }
        writer.start(&entry)?;
        std::io::copy(&mut reader, &mut writer)?;
    }
    writer.finish().map(drop)
}

/// What the engine says of a path in a container.
async fn stat(client: &Client, container: &str, path: &str) -> Result<Value, Failure> {
    let query = format!("/containers/{}/archive?path={}", encode(container), encode(path));
    let answer = client.call(Method::HEAD, &query, None, None).await?;
    let header = answer.headers().get("x-docker-container-path-stat");
    header
        .and_then(|header| serde_json::from_slice(&STANDARD.decode(header.as_bytes()).ok()?).ok())
        .ok_or_else(|| Failure::new(format!("the engine did not say what {path} is")))
}

fn kind(stat: &Value) -> Is {
    // Go's os.ModeDir
    match stat["mode"].as_u64().unwrap_or_default() & (1 << 31) {
        0 => Is::Other,
        _ => Is::Directory,
    }
}

/// Where a symbolic link in a container leads, if it is one (Go's os.ModeSymlink).
fn target(stat: &Value, path: &str) -> Option<String> {
    let link = stat["mode"].as_u64().unwrap_or_default() & (1 << 27) != 0;
    let target = stat["linkTarget"].as_str().filter(|_| link)?;
    Some(match target.starts_with('/') {
        true => target.to_owned(),
        false => {
            let parent = Path::new(path).parent().unwrap_or(Path::new("/"));
            parent.join(target).to_string_lossy().into_owned()
        }
    })
}

async fn out(
    client: &Client,
    container: &str,
    path: &str,
    to: &str,
    arguments: &CopyArguments,
) -> Result<(), Failure> {
    let mut path = path.to_owned();
    let mut name = None;
    if arguments.follow_link
        && let Ok(seen) = stat(client, container, &path).await
        && let Some(target) = target(&seen, &path)
    {
        // it keeps the link's name
        name = Path::new(&path).file_name().map(|name| name.as_bytes().to_vec());
        path = target;
    }
    let query = format!("/containers/{}/archive?path={}", encode(container), encode(&path));
    let answer = client.call(Method::GET, &query, None, None).await?;
    let header = answer.headers().get("x-docker-container-path-stat").cloned();
    let seen: Value = header
        .and_then(|header| serde_json::from_slice(&STANDARD.decode(header.as_bytes()).ok()?).ok())
        .unwrap_or_default();
    if to == "-" {
        let mut body = StreamReader::new(body_stream(answer));
        let mut stdout = tokio::io::stdout();
        tokio::io::copy(&mut body, &mut stdout).await?;
        return tokio::io::AsyncWriteExt::flush(&mut stdout).await.map_err(Failure::from);
    }
    let destination = followed(Path::new(to));
    let to = destination.as_path();
    let destination = match std::fs::metadata(to) {
        Ok(found) if found.is_dir() => Is::Directory,
        Ok(_) => Is::Other,
        Err(_) => Is::Missing,
    };
    let plan = plan(kind(&seen), to, destination)?;
    let directory = rustix::fs::openat(
        CWD,
        &plan.directory,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|cause| {
        Failure::new(format!("cannot copy to {}: {cause}", plan.directory.display()))
    })?;
    let meter = meter("Copying from container", arguments);
    let body = Metered { inner: StreamReader::new(body_stream(answer)), meter: meter.clone() };
    let stream = SyncIoBridge::new(body);
    let name = plan.name.or(name);
    let unpacked = tokio::task::spawn_blocking(move || unpack(stream, directory, name)).await;
    let copied = meter.finish();
    unpacked.map_err(|panic| Failure::new(panic.to_string()))??;
    tell(arguments, copied, &to.display().to_string());
    Ok(())
}

/// Where a symbolic link of this machine leads: what is copied goes there, and does not replace it.
fn followed(path: &Path) -> PathBuf {
    const LINKS: usize = 40; // as many as the kernel follows, path_resolution(7)
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        match std::fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => break,
        }
    }
    path
}

/// Unpacks into a directory of this machine: what a container has written leads nowhere outside.
fn unpack(
    stream: impl Read + Send,
    directory: OwnedFd,
    name: Option<Vec<u8>>,
) -> Result<(), Failure> {
    let into = Unpack {
        root: directory.as_fd(),
        below: Path::new(""),
        owners: Owners::Engine,
        keep_kinds: true,
        limits: Limits::COPY,
    };
    let failed = |cause: &dyn std::fmt::Display| Failure::new(cause.to_string());
    let Some(name) = name else { return into.run(stream).map_err(|cause| failed(&cause)) };
    let (reader, writer) = std::io::pipe()?;
    std::thread::scope(|scope| {
        let renaming = scope.spawn(move || rename(stream, writer, &name));
        let unpacked = into.run(reader);
        let renamed = renaming.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // what could not be unpacked breaks the pipe as well, and says more
        unpacked.map_err(|cause| failed(&cause))?;
        renamed.map_err(|cause| failed(&cause))
    })
}

async fn into(
    client: &Client,
    from: &str,
    container: &str,
    path: &str,
    arguments: &CopyArguments,
) -> Result<(), Failure> {
    let mut path = path.to_owned();
    let mut seen = stat(client, container, &path).await;
    if let Ok(link) = &seen
        && let Some(target) = target(link, &path)
    {
        seen = stat(client, container, &target).await;
        path = target;
    }
    let destination = match &seen {
        Ok(seen) => kind(seen),
        // of a container that is not there, the engine says it below
        Err(_) => Is::Missing,
    };
    let query = |directory: &Path| {
        format!(
            "/containers/{}/archive?path={}&noOverwriteDirNonDir=true{}",
            encode(container),
            encode(&directory.to_string_lossy()),
            if arguments.archive { "&copyUIDGID=true" } else { "" },
        )
    };
    if from == "-" {
        if destination != Is::Directory {
            // of a container that is not there it is the engine that says so
            client.get(&format!("/containers/{}/json", encode(container))).await?;
            return Err(Failure::new(format!(
                "destination \"{container}:{path}\" must be a directory"
            )));
        }
        let body = ReaderStream::with_capacity(tokio::io::stdin(), 256 * 1024);
        let query = query(Path::new(&path));
        return client.upload(Method::PUT, &query, None, body).await.map(drop);
    }
    let source = Source::open(Path::new(from), arguments.follow_link)?;
    let plan = plan(source.kind(), Path::new(&path), destination)?;
    let meter = meter("Copying to container", arguments);
    let (writer, reader) = tokio::io::duplex(1 << 20);
    let to = Metered { inner: SyncIoBridge::new(writer), meter: meter.clone() };
    let name = plan.name.clone();
    let sending = tokio::task::spawn_blocking(move || source.pack(to, name.as_deref()));
    let body = ReaderStream::with_capacity(reader, 256 * 1024);
    let answer = client.upload(Method::PUT, &query(&plan.directory), None, body).await;
    let sent = sending.await.map_err(|panic| Failure::new(panic.to_string()))?;
    let copied = meter.finish();
    // the engine's refusal says more than the broken pipe that it caused
    answer?;
    sent.map_err(|cause| Failure::new(format!("cannot read {from}: {cause}")))?;
    tell(arguments, copied, &format!("{container}:{path}"));
    Ok(())
}

/// A file or directory of this machine that is to be copied.
#[derive(Debug)]
struct Source {
    file: OwnedFd,
    stat: rustix::fs::Stat,
    name: Vec<u8>,
}

impl Source {
    /// A link is copied itself, unless it is to be followed or a slash is behind it.
    fn open(path: &Path, follow: bool) -> Result<Self, Failure> {
        let bytes = path.as_os_str().as_bytes();
        let contents = bytes == b"." || bytes.ends_with(b"/.");
        let follow = follow || contents || bytes.ends_with(b"/");
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        flags.set(OFlags::NOFOLLOW, !follow);
        let opened = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .and_then(|file| Ok((rustix::fs::statat(&file, "", AtFlags::EMPTY_PATH)?, file)));
        let (stat, file) = opened
            .map_err(|cause| Failure::new(format!("cannot read {}: {cause}", path.display())))?;
        let name = match path.file_name() {
            Some(name) if !contents => name.as_bytes().to_vec(),
            _ => b".".to_vec(),
        };
        Ok(Self { file, stat, name })
    }

    fn kind(&self) -> Is {
        match rustix::fs::FileType::from_raw_mode(self.stat.st_mode) {
            rustix::fs::FileType::Directory => Is::Directory,
            _ => Is::Other,
        }
    }

    fn pack(self, to: impl Write, name: Option<&[u8]>) -> std::io::Result<()> {
        bulkhead_archive::pack(to, self.file.as_fd(), name.unwrap_or(&self.name), None)
    }
}

fn meter(what: &str, arguments: &CopyArguments) -> Meter {
    if arguments.quiet || !std::io::stdout().is_terminal() {
        return Meter::quiet();
    }
    Meter::new(what, None)
}

/// On a terminal, as Docker does.
fn tell(arguments: &CopyArguments, bytes: u64, to: &str) {
    if !arguments.quiet && std::io::stdout().is_terminal() {
        eprintln!("Successfully copied {} to {to}", bulkhead_types::decimal_size(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_read_as_docker_reads_them() {
        for (text, expected) in [
            ("web:/etc/passwd", End::Container("web", "/etc/passwd")),
            ("web:a:b", End::Container("web", "a:b")),
            ("/a:b", End::Here("/a:b")),
            ("./a:b", End::Here("./a:b")),
            (":/x", End::Here(":/x")),
            ("-", End::Here("-")),
        ] {
            assert_eq!(End::read(text), expected);
        }
    }

    #[test]
    fn what_is_there_decides_where_it_goes() {
        use Is::{Directory, Missing, Other};
        let as_is = |directory: &str| Ok(Plan { directory: directory.into(), name: None });
        let named = |directory: &str, name: &str| {
            Ok(Plan { directory: directory.into(), name: Some(name.into()) })
        };
        for (source, to, destination, expected) in [
            (Other, "/d", Directory, as_is("/d")),
            (Directory, "/d/", Directory, as_is("/d/")),
            (Other, "/d/f", Other, named("/d/", "f")),
            (Other, "f", Missing, named(".", "f")),
            (Directory, "/d/new/", Missing, named("/d/", "new")),
            (Directory, "/new/.", Missing, named("/", "new")),
            (Other, "/d/new/", Missing, Err("no such directory")),
            (Directory, "/f", Other, Err("cannot copy directory")),
        ] {
            let planned = plan(source, Path::new(to), destination);
            match expected {
                Ok(expected) => assert_eq!(planned.expect(to), expected),
                Err(text) => assert!(planned.expect_err(to).message.starts_with(text)),
            }
        }
    }

    #[test]
    fn members_get_another_first_name() {
        use bulkhead_archive::Entry;
        let mut writer = Writer::new(Vec::new());
        for (path, kind) in [
            ("old/", Kind::Directory),
            ("old/f", Kind::File { size: 3 }),
            ("old/g", Kind::HardLink { target: b"old/f".to_vec() }),
            ("./x", Kind::Symlink { target: b"old/f".to_vec() }),
            ("/y", Kind::Directory),
        ] {
            writer.start(&Entry::new(path, kind.clone())).unwrap();
            if let Kind::File { .. } = kind {
                writer.write_all(b"abc").unwrap();
            }
        }
        let (archive, mut renamed) = (writer.finish().unwrap(), Vec::new());
        rename(&archive[..], &mut renamed, b"new").unwrap();
        let mut reader = Reader::plain(&renamed[..], Limits::COPY);
        let mut names = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            let mut content = String::new();
            reader.read_to_string(&mut content).unwrap();
            names.push((String::from_utf8(entry.path).unwrap(), entry.kind, content));
        }
        let paths: Vec<&str> = names.iter().map(|(path, ..)| path.as_str()).collect();
        assert_eq!(paths, ["new/", "new/f", "new/g", "new/x", "new/y"]);
        assert_eq!(names[1].2, "abc");
        assert_eq!(names[2].1, Kind::HardLink { target: b"new/f".to_vec() });
        assert_eq!(names[3].1, Kind::Symlink { target: b"old/f".to_vec() });
    }
}
