//! What the user sees when a command fails, and the exit status that goes with it.

use std::fmt;

/// One sentence for the user. Exit statuses are Docker's: 125 when the engine refused, 126 and 127
/// when the program in the container could not be run, 1 for everything else.
#[derive(Debug)]
pub struct Failure {
    pub message: String,
    /// The HTTP status, if the engine answered with one.
    pub status: Option<u16>,
    pub exit_code: u8,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: None, exit_code: 1 }
    }

    pub fn with_code(self, exit_code: u8) -> Self {
        Self { exit_code, ..self }
    }

    /// A command that has already said everything: only the exit status is left.
    pub fn silent(exit_code: u8) -> Self {
        Self { message: String::new(), status: None, exit_code }
    }

    /// The exit status of `run`, `start` and `create`, which Docker derives from the error's words
    /// (docker/cli: cli/command/container/run.go, `toStatusError`).
    pub fn of_start(self) -> Self {
        let exit_code = match &self.message {
            message if message.contains("executable file not found") => 127,
            message if message.contains("no such file or directory") => 127,
            message if message.contains("permission denied") && self.status.is_some() => 126,
            message if message.contains("is a directory") => 126,
            _ => 125,
        };
        Self { exit_code, ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<std::io::Error> for Failure {
    fn from(cause: std::io::Error) -> Self {
        Self::new(cause.to_string())
    }
}
