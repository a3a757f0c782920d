//! What the sources of a COPY name: files of the tree that is copied from, by path or pattern.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use bulkhead_types::glob::{Dialect, Glob};

use super::{CopyError, Transfer, WhileDoing};
use crate::view::Node;

/// One thing that a source names.
#[derive(Debug)]
pub(super) struct Found {
    /// The name it was asked by, which the copy gets.
    pub(super) name: OsString,
    /// Where it is, without links.
    pub(super) path: PathBuf,
    pub(super) node: Node,
}

impl Found {
    pub(super) fn is_directory(&self) -> bool {
        self.node.is_directory()
    }
}

impl Transfer {
    /// All that one source, maybe a pattern, names.
    pub(super) fn find(&self, source: &str) -> Result<Vec<Found>, CopyError> {
        let what = || format!("look up {source}");
        let mut parts: Vec<&str> = Vec::new();
        for part in source.split('/') {
            match part {
                "" | "." => {}
                // Above the top there is nothing: `../x` is `x`, as BuildKit has it.
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        if !source.contains(['*', '?', '[']) {
            // A backslash before an ordinary character means the character.
            let path: PathBuf = parts.iter().map(|part| unescaped(part)).collect();
            return match self.found(&path, &path).while_doing(what)? {
                Some(found) => Ok(vec![found]),
                None => Err(self.refused(&self.missing(source))),
            };
        }
        let mut paths = vec![PathBuf::new()];
        for part in parts {
            let glob = Glob::parse(part, Dialect::Match)
                .ok_or_else(|| self.refused(&format!("syntax error in pattern {source}")))?;
            let mut next = Vec::new();
            for path in paths {
                let Some(node) = self.source.resolve(&path).while_doing(what)?.node else {
                    continue;
                };
                for name in node.names().while_doing(what)? {
                    if name.to_str().is_some_and(|name| glob.matches(name)) {
                        next.push(path.join(name));
                    }
                }
            }
            paths = next;
        }
        let found = paths.iter().map(|path| self.found(path, path));
        Ok(found.collect::<io::Result<Vec<_>>>().while_doing(what)?.into_iter().flatten().collect())
    }

    fn found(&self, asked: &Path, path: &Path) -> io::Result<Option<Found>> {
        let resolved = match self.source.resolve(path) {
            Ok(resolved) => resolved,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(node) = resolved.node else { return Ok(None) };
        let hidden = |path: &Path| !path.as_os_str().is_empty() && self.excludes(path);
        let kept_below = node.is_directory() && self.may_keep_below_excluded();
        if (hidden(&resolved.path) || hidden(asked)) && !kept_below {
            return Ok(None);
        }
        let name = asked.file_name().unwrap_or_default().to_owned();
        Ok(Some(Found { name, path: resolved.path, node }))
    }

    pub(super) fn open(&self, path: &Path) -> Result<std::fs::File, CopyError> {
        let what = || format!("open {}", path.display());
        let node = self.source.exact(path).while_doing(what)?;
        match node.map(|node| node.open_file()).transpose().while_doing(what)?.flatten() {
            Some(file) => Ok(file),
            None => Err(self.refused(&format!("{} is gone", path.display()))),
        }
    }

    pub(super) fn excludes(&self, path: &Path) -> bool {
        let path = path.to_string_lossy();
        self.ignores.iter().any(|ignore| ignore.excludes(&path))
    }

    pub(super) fn may_keep_below_excluded(&self) -> bool {
        self.ignores.iter().any(|ignore| ignore.may_keep_below_excluded())
    }

    fn missing(&self, source: &str) -> String {
        let place = if self.from_context {
            "file not found in build context or excluded by .dockerignore: "
        } else {
            ""
        };
        format!("{place}stat {source}: file does not exist")
    }
}

fn unescaped(part: &str) -> String {
    let mut rest = part.chars();
    let mut text = String::new();
    while let Some(next) = rest.next() {
        match next {
            '\\' => text.extend(rest.next()),
            other => text.push(other),
        }
    }
    text
}
