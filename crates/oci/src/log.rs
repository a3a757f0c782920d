//! What `--log` and `--log-format` ask for: containerd and podman read the last error from there.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::Write;

use crate::arguments::{Global, LogFormat};
use crate::error::{Error, Result};

/// Where messages go.
#[derive(Debug)]
pub struct Log {
    file: Option<RefCell<File>>,
    format: LogFormat,
    debug: bool,
}

impl Log {
    /// Opens the file of `--log`, to which is appended; without one it is standard error.
    pub fn open(global: &Global) -> Result<Self> {
        let file = match &global.log {
            None => None,
            Some(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                let what = format!("open the log {}", path.display());
                Some(RefCell::new(file.map_err(Error::system(what))?))
            }
        };
        Ok(Self { file, format: global.log_format, debug: global.debug })
    }

    pub fn standard_error() -> Self {
        Self { file: None, format: LogFormat::Text, debug: false }
    }

    pub fn warn(&self, message: &str) {
        self.write("warning", message);
    }

    pub fn debug(&self, message: impl FnOnce() -> String) {
        if self.debug {
            self.write("debug", &message());
        }
    }

    /// Says why a command failed: in the log, and to people on standard error.
    pub fn fail(&self, name: &str, error: &Error) {
        let mut text = error.to_string();
        if matches!(error, Error::Start { .. }) {
            text = format!("{name} {text}");
        }
        // a closed stderr leaves nobody to tell
        let _ = match (&self.file, error) {
            (Some(_), _) | (None, Error::Start { .. }) => writeln!(std::io::stderr(), "{text}"),
            (None, _) => writeln!(std::io::stderr(), "{name}: {text}"),
        };
        if self.file.is_some() {
            self.write("error", &text);
        }
    }

    fn write(&self, level: &str, message: &str) {
        let line = match self.format {
            LogFormat::Json => {
                let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                serde_json::json!({ "level": level, "msg": message, "time": time }).to_string()
            }
            LogFormat::Text => {
                let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                format!("time={time:?} level={level} msg={message:?}")
            }
        };
        // a full disk must not keep a container from ending
        let _ = match &self.file {
            Some(file) => writeln!(file.borrow_mut(), "{line}"),
            None => writeln!(std::io::stderr(), "{line}"),
        };
    }
}
