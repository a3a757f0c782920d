//! How far the store had come, kept beside it: a store that was lost, emptied or put back to an
//! earlier moment must not be taken for one that knows everything.
//!
//! One line of fixed length in `PATH.witness`, written in place after each transaction and not
//! flushed: what survives `kill -9` is enough, and a witness that is behind the store says nothing.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Revision;

#[derive(Debug)]
pub(crate) struct Witness {
    /// `None` where it cannot be written: on a full disk that has none yet.
    file: Option<File>,
    identity: u64,
    lost: AtomicBool,
}

impl Witness {
    /// Compares the store with what was seen of it. `is_older`: it was made before there were
    /// witnesses, and nothing speaks against it.
    pub(crate) fn open(store: &Path, identity: u64, revision: Revision, is_older: bool) -> Self {
        let mut name = store.as_os_str().to_owned();
        name.push(".witness");
        let mut options = File::options();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let opened = options.open(&name);
        if let Err(error) = &opened {
            tracing::warn!(store = %store.display(), %error, "no witness of the store");
        }
        let file = opened.ok();
        let mut text = [0; LENGTH];
        let length = file.as_ref().map_or(0, |file| file.read_at(&mut text, 0).unwrap_or(0));
        let lost = match parse(&String::from_utf8_lossy(&text[..length])) {
            Some((seen, at, whole)) => seen != identity || at > revision || !whole,
            None => !is_older,
        };
        let witness = Self { file, identity, lost: AtomicBool::new(lost) };
        witness.write(revision);
        // A crash before what the store does not know was moved aside must not make it forget that.
        if let Some(file) = &witness.file
            && let Err(error) = file.sync_all()
        {
            tracing::warn!(store = %store.display(), %error, "the witness of the store");
        }
        witness
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    pub(crate) fn confirm(&self, revision: Revision) {
        self.lost.store(false, Ordering::Release);
        self.write(revision);
    }

    pub(crate) fn write(&self, revision: Revision) {
        let state = if self.is_lost() { "lost " } else { "whole" };
        if let Some(file) = &self.file {
            // Without it the next opener is less sure, and no worse than that.
            let line = format!("{:016x} {revision:020} {state}\n", self.identity);
            let _ = file.write_all_at(line.as_bytes(), 0);
        }
    }
}

const LENGTH: usize = 16 + 1 + 20 + 1 + 5 + 1;

/// (identity, revision, whether it was whole)
fn parse(line: &str) -> Option<(u64, Revision, bool)> {
    let mut words = line.split_whitespace();
    let identity = u64::from_str_radix(words.next()?, 16).ok()?;
    Some((identity, words.next()?.parse().ok()?, words.next()? == "whole"))
}
