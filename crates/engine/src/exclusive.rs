//! One engine for a run directory and for a network namespace, whatever its data directory is: a
//! second one would replace the first one's socket, empty its map of published ports and remove the
//! links of its running containers.
//!
//! Both are locks of the kernel's (flock(2)), so they end with their holder, however it ends. That of
//! the network namespace lies on the namespace itself: files of namespaces can be locked as others.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::data_dir::process_ends;
use crate::error::io_error;
use crate::{Class, EngineError};

/// Held as long as the engine lives.
#[derive(Debug)]
pub(crate) struct Exclusive {
    _run: File,
    /// `None` if somebody without rights holds it: anybody can, and must not keep an engine away.
    _network: Option<File>,
}

impl Exclusive {
    /// Takes both, or says who has them. Nothing else is touched before.
    pub(crate) fn take(run: &Path, data: &Path) -> Result<Self, EngineError> {
        std::fs::create_dir_all(run).map_err(io_error(run.display()))?;
        let network = take_network()?;
        Ok(Self { _run: take_run(run, data)?, _network: network })
    }
}

fn take_run(run: &Path, data: &Path) -> Result<File, EngineError> {
    let path = run.join("engine.lock");
    let failed = |cause| io_error(path.display())(cause);
    let mut options = File::options();
    let file = options.create(true).truncate(false).read(true).write(true).mode(0o600).open(&path);
    let file = file.map_err(failed)?;
    let mut text = [0; 4096];
    let length = file.read_at(&mut text, 0).unwrap_or(0);
    let text = String::from_utf8_lossy(&text[..length]).into_owned();
    let (pid, used) = text.lines().next().and_then(|line| line.split_once(' ')).unwrap_or_default();
    if file.try_lock().is_err() && !(process_ends(pid) && file.try_lock().is_ok()) {
        return Err(conflict(format!(
            "another Bulkhead engine uses {} (process {pid}, data directory {used}); stop it first or \
             choose another run directory",
            run.display()
        )));
    }
    let own = format!("{} {}\n", std::process::id(), data.display());
    let written = file.set_len(0).and_then(|()| file.write_all_at(own.as_bytes(), 0));
    written.map_err(|cause| io_error(path.display())(cause))?;
    Ok(file)
}

fn take_network() -> Result<Option<File>, EngineError> {
    const PATH: &str = "/proc/thread-self/ns/net";
    let file = File::open(PATH).map_err(io_error(PATH))?;
    if file.try_lock().is_ok() {
        return Ok(Some(file));
    }
    let inode = file.metadata().map_err(io_error(PATH))?.ino();
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let Some(pid) = holder(&locks, inode) else {
        // Gone since, or of a pid namespace that this one does not see.
        return match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(_) => Err(serves("of another pid namespace")),
        };
    };
    let of_root = std::fs::metadata(format!("/proc/{pid}")).is_ok_and(|file| file.uid() == 0);
    if !of_root {
        tracing::warn!(pid, "a process without rights holds this network namespace's lock");
        return Ok(None);
    }
    if process_ends(&pid.to_string()) && file.try_lock().is_ok() {
        return Ok(Some(file));
    }
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    Err(serves(&format!("{pid}: {}", command.trim())))
}

fn serves(who: &str) -> EngineError {
    conflict(format!(
        "another Bulkhead engine uses this network namespace (process {who}): two would take away each \
         other's links and published ports; stop it first or choose another network namespace"
    ))
}

fn conflict(message: String) -> EngineError {
    EngineError::new(Class::Conflict, message)
}

/// Who holds the lock of a file by its inode (proc_locks(5): `1: FLOCK ADVISORY WRITE PID DEV:INODE`).
fn holder(locks: &str, inode: u64) -> Option<i32> {
    let end = format!(":{inode}");
    let line = locks.lines().find(|line| {
        let mut words = line.split_whitespace();
        !line.contains("->")
            && words.nth(1) == Some("FLOCK")
            && words.nth(3).is_some_and(|it| it.ends_with(&end))
    })?;
    line.split_whitespace().nth(4)?.parse().ok().filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found() {
        let locks = "1: POSIX  ADVISORY  WRITE 12 00:04:4026531833 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 9888 00:04:4026531833 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 77 00:04:4026531833 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 0 00:04:4026531834 0 EOF\n";
        assert_eq!(holder(locks, 4_026_531_833), Some(9888));
        assert_eq!(holder(locks, 4_026_531_834), None);
        assert_eq!(holder(locks, 1), None);
    }
}
