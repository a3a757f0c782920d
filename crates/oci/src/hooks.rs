//! Where hooks write to, and those hooks whose failure changes nothing.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bulkhead_runtime::hook::{self, Outputs};
use bulkhead_types::oci::{self, Config};

use crate::error::{Error, Result};
use crate::log::Log;

/// Files that annotations name for the output of hooks (crun.1, `run.oci.hooks.stdout` and
/// `run.oci.hooks.stderr`).
#[derive(Debug, Default)]
pub struct HookFiles {
    pub stdout: Option<File>,
    pub stderr: Option<File>,
}

impl HookFiles {
    /// Opens them to append to, and makes those that are missing, for root alone; nothing where
    /// there is no hook. A relative path is in the bundle, as where hooks run.
    pub fn open(config: &Config, bundle: &Path) -> Result<Self> {
        if config.hooks.as_ref().is_none_or(|hooks| *hooks == oci::Hooks::default()) {
            return Ok(Self::default());
        }
        let open = |name: &str| {
            let Some(path) = config.annotations.get(name) else { return Ok(None) };
            let what = format!("open {path:?}, which the annotation {name} names");
            let mut options = OpenOptions::new();
            options.append(true).create(true).mode(0o600);
            options.open(bundle.join(path)).map(Some).map_err(Error::system(what))
        };
        Ok(Self { stdout: open("run.oci.hooks.stdout")?, stderr: open("run.oci.hooks.stderr")? })
    }

    /// The same for hooks that have to run in any case: a file that cannot be opened is only warned
    /// of.
    pub fn open_if_possible(config: &Config, bundle: &str, log: &Log) -> Self {
        Self::open(config, Path::new(bundle)).unwrap_or_else(|error| {
            log.warn(&error.to_string());
            Self::default()
        })
    }

    pub fn outputs(&self) -> Outputs<'_> {
        Outputs {
            stdout: self.stdout.as_ref().map(AsFd::as_fd),
            stderr: self.stderr.as_ref().map(AsFd::as_fd),
        }
    }
}

/// Runs the hooks of a container that is no more; one that fails is only warned of (runtime.md,
/// "Lifecycle").
pub fn poststop(hooks: &oci::Hooks, state: &oci::State, outputs: Outputs<'_>, log: &Log) {
    for error in hook::run_each("poststop", &hooks.poststop, state, outputs) {
        let how = error.exit_status.map_or(String::new(), |code| format!(" with exit code {code}"));
        log.warn(&format!("poststop hook failed{how}, the container is removed even so: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(hooks: &str, directory: &Path) -> Config {
        let text = format!(
            r#"{{"ociVersion":"1.3.0","hooks":{hooks},"annotations":{{
                "run.oci.hooks.stdout":"out","run.oci.hooks.stderr":"{}/err"}}}}"#,
            directory.display()
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn files_are_made_for_hooks_and_for_nothing_else() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let none = HookFiles::open(&config("{}", directory.path()), directory.path()).unwrap();
        assert!(none.stdout.is_none() && none.stderr.is_none());
        let config = config(r#"{"poststop":[{"path":"/a"}]}"#, directory.path());
        let files = HookFiles::open(&config, directory.path()).unwrap();
        assert!(files.stdout.is_some() && files.stderr.is_some());
        for name in ["out", "err"] {
            let mode = std::fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{name}");
        }
        let error = HookFiles::open(&config, &directory.path().join("absent")).unwrap_err();
        let want = "open \"out\", which the annotation run.oci.hooks.stdout names: no such file";
        assert!(error.to_string().starts_with(want), "{error}");
    }
}
