//! `ADD https://…`: files that the executor fetches, laid out as a tree that is copied from.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use bulkhead_types::Digest;
use rustix::fs::{Mode, OFlags, Timespec, Timestamps};

use super::{Build, Running};
use crate::BuildError;
use crate::instruction::Copy;
use crate::request::{Executor, Fetched};

/// What was fetched for one ADD.
#[derive(Debug)]
pub(super) struct RemoteFiles {
    pub(super) directory: OwnedFd,
    /// Patterns below `directory`, each of which means one file.
    pub(super) sources: Vec<String>,
}

/// Whether a source of ADD is an address.
pub(super) fn is_remote(source: &str) -> bool {
    let scheme = |prefix: &str| {
        source.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    scheme("http://") || scheme("https://")
}

impl<E: Executor> Build<'_, E> {
    /// Fetches all sources of an ADD, or `None` if they are files of the context.
    pub(super) async fn fetch_sources(
        &self,
        running: Running<'_>,
        copy: &Copy,
        sources: &[String],
        destination: &str,
        checksum: Option<&str>,
        line: usize,
    ) -> Result<Option<RemoteFiles>, BuildError> {
        let refused = |message: String| BuildError::Step { line, message };
        if !copy.add || !sources.iter().any(|source| is_remote(source)) {
            return match checksum {
                Some(_) => Err(refused("ADD --checksum applies to addresses only".to_owned())),
                None => Ok(None),
            };
        }
        if !copy.files.is_empty() || !sources.iter().all(|source| is_remote(source)) {
            return Err(refused(
                "ADD of addresses together with files is not supported: write an ADD for each"
                    .to_owned(),
            ));
        }
        let checksum = checksum.map(read_checksum).transpose().map_err(refused)?;
        if checksum.is_some() && sources.len() > 1 {
            return Err(refused("ADD --checksum can be given for one address only".to_owned()));
        }
        // Vertices that are the same work have the same name, and the work is done twice.
        let name = format!("add-{}-{line}", running.vertex.digest.hex());
        let failed = |cause: io::Error| BuildError::Io {
            what: "make a directory for what ADD fetches".to_owned(),
            cause,
        };
        let scratch = self.scratch.as_fd();
        match rustix::fs::mkdirat(scratch, &name, Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno.into())),
        }
        let directory_flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let open =
            |path: &Path| bulkhead_sys::path::open(scratch, path, directory_flags, Mode::empty());
        let directory = open(Path::new(&name)).map_err(failed)?;
        let mut patterns = Vec::new();
        for (index, source) in sources.iter().enumerate() {
            let file_name = match file_name(source) {
                Some(name) => name,
                None if destination.ends_with('/') => {
                    return Err(refused(format!("cannot determine filename from url: {source}")));
                }
                None => "download".to_owned(),
            };
            let index = index.to_string();
            match rustix::fs::mkdirat(&directory, &index, Mode::RWXU) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(errno) => return Err(failed(errno.into())),
            }
            let path = format!("{index}/{file_name}");
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
            let mode = Mode::RUSR | Mode::WUSR;
            let file = bulkhead_sys::path::open(directory.as_fd(), Path::new(&path), flags, mode);
            let file = std::fs::File::from(file.map_err(failed)?);
            let to = file.try_clone().map_err(failed)?;
            let vertex = running.vertex.digest;
            let Fetched { digest, modified } =
                self.executor.fetch(source, to, vertex, self.events).await?;
            if let Some(expected) = checksum
                && digest != expected
            {
                return Err(refused(format!(
                    "digest mismatch for {source}: expected {expected}, found {digest}"
                )));
            }
            // As the classic builder has it (moby: builder/dockerfile/copy.go, `downloadSource`).
            let seconds = modified.map_or(0, |time| time.as_second());
            let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::futimens(&file, &times).map_err(|errno| failed(errno.into()))?;
            patterns.push(format!("{index}/{}", literal(&file_name)));
        }
        Ok(Some(RemoteFiles { directory, sources: patterns }))
    }

    /// Removes what was fetched for an operation; what stays goes with the build's own directory.
    pub(super) fn forget_sources(&self, running: Running<'_>, line: usize) {
        let name = format!("add-{}-{line}", running.vertex.digest.hex());
        let _ = bulkhead_sys::path::remove_tree(self.scratch.as_fd(), name.as_ref());
    }
}

/// `sha256:HEX`, the one algorithm that all builders know.
fn read_checksum(text: &str) -> Result<Digest, String> {
    text.parse().map_err(|_| {
        format!("ADD --checksum={text} is no checksum: write it as sha256: and 64 digits")
    })
}

/// The last name of an address's path, with `%xx` decoded; `None` if it has none that a file could
/// have.
fn file_name(address: &str) -> Option<String> {
    let path = address.split(['?', '#']).next()?;
    let path = path.split_once("://")?.1.split_once('/')?.1;
    let name = path.rsplit('/').next()?;
    let name = percent_encoding::percent_decode_str(name).decode_utf8().ok()?;
    let usable = !matches!(&*name, "" | "." | "..") && !name.contains(['/', '\0']);
    (usable && name.len() <= 255).then(|| name.into_owned())
}

/// A pattern that matches nothing but `name`.
fn literal(name: &str) -> String {
    let mut pattern = String::new();
    for letter in name.chars() {
        if matches!(letter, '*' | '?' | '[' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_path() {
        for (address, want) in [
            ("http://h/a/b.tar?x=/y", Some("b.tar")),
            ("https://h/a%20b#c", Some("a b")),
            ("https://h/[1]*", Some("[1]*")),
            ("https://h/", None),
            ("https://h", None),
            ("https://h/a/..", None),
            ("https://h/a%2fb", None),
        ] {
            assert_eq!(file_name(address).as_deref(), want, "{address}");
        }
        assert_eq!(literal("a[1]*\\?"), "a\\[1]\\*\\\\\\?");
        assert!(is_remote("HTTPS://h/x") && !is_remote("http:/x") && !is_remote("ü"));
    }
}
