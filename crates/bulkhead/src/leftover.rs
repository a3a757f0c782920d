//! The sockets that an engine has outside of its run directory: recorded in it, so that those of one that
//! was killed are known and removed.

use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

fn file(run: &Path) -> PathBuf {
    run.join("sockets.json")
}

/// Removes what is left of the engine before this one, and writes down `paths`, before the first of them
/// is made.
pub fn record(run: &Path, paths: &[PathBuf]) -> Result<(), Failure> {
    remove(run);
    if paths.is_empty() {
        return Ok(());
    }
    let file = file(run);
    let failed =
        |cause: std::io::Error| Failure::new(format!("cannot write {}: {cause}", file.display()));
    let text = serde_json::to_string(paths).map_err(|cause| failed(cause.into()))?;
    std::fs::write(&file, text).map_err(failed)
}

/// Removes the sockets that are written down, but for one on which somebody listens.
pub fn remove(run: &Path) {
    let text = std::fs::read_to_string(file(run)).unwrap_or_default();
    let paths: Vec<PathBuf> = serde_json::from_str(&text).unwrap_or_default();
    for path in paths {
        let is_socket = std::fs::symlink_metadata(&path).is_ok_and(|it| it.file_type().is_socket());
        if is_socket && UnixStream::connect(&path).is_err() {
            let _ = std::fs::remove_file(&path);
        }
    }
    forget(run);
}

/// After they were removed.
pub fn forget(run: &Path) {
    let _ = std::fs::remove_file(file(run));
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn sockets_that_nobody_listens_on_go() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let live = UnixListener::bind(at("live")).unwrap();
        drop(UnixListener::bind(at("dead")).unwrap());
        std::fs::write(at("file"), "").unwrap();
        let run = at("run");
        std::fs::create_dir(&run).unwrap();
        record(&run, &["live", "dead", "file", "gone"].map(at)).unwrap();
        remove(&run);
        assert!(at("live").exists() && at("file").exists() && !at("dead").exists());
        assert!(!file(&run).exists());
        drop(live);
    }
}
