//! What the user sees when a command fails, and the exit status that goes with it.

use std::fmt;

/// One sentence for the user. Exit statuses are Docker's: 125 when the engine refused, 126 and 127
/// when the program in the container could not be run, 1 for everything else.
#[derive(Debug)]
pub struct Failure {
    pub message: String,
    /// The HTTP status, if the engine answered with one.
    pub status: Option<u16>,
    /// The exit status of a program that the engine could not start, from its answer.
    pub start_status: Option<u8>,
    pub exit_code: u8,
    /// What kind of thing the engine says is not there, if it is Bulkhead's.
    pub missing: Option<String>,
}

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            status: None,
            start_status: None,
            exit_code: 1,
            missing: None,
        }
    }

    pub fn with_code(self, exit_code: u8) -> Self {
        Self { exit_code, ..self }
    }

    /// A command that has already said everything: only the exit status is left.
    pub fn silent(exit_code: u8) -> Self {
        Self { exit_code, ..Self::new("") }
    }

    /// An engine that does not know a request of Bulkhead's own: Docker, or one of before.
    pub fn is_unknown_request(&self) -> bool {
        self.status == Some(404) && self.message == "page not found"
    }

    /// Whether a thing of this kind is missing. Bulkhead's engine says so in a header; of a Docker there
    /// are only its words.
    pub fn lacks(&self, kind: &str, words: &str) -> bool {
        match &self.missing {
            Some(missing) => missing == kind,
            None => self.status == Some(404) && self.message.contains(words),
        }
    }

    /// With the exit status of `run`, `start` and `create`, which docker's client makes of the error's
    /// words (docker/cli: cli/command/container/run.go, `toStatusError`).
    pub fn of_start(self) -> Self {
        let exit_code = self.start_status.unwrap_or(125);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_header_goes_before_its_words() {
        let words = Failure { status: Some(404), ..Failure::new("No such image: a") };
        assert!(words.lacks("image", "No such image"));
        let other = Failure { missing: Some("network".to_owned()), ..words };
        assert!(!other.lacks("image", "No such image"));
        let image = Failure { missing: Some("image".to_owned()), ..Failure::new("in any words") };
        assert!(image.lacks("image", "No such image"));
    }

    #[test]
    fn exit_statuses_come_from_the_engine_and_not_from_words() {
        let failure = Failure::new("permission denied: no such file or directory");
        assert_eq!(failure.of_start().exit_code, 125);
        let failure = Failure { start_status: Some(127), ..Failure::new("in any words") };
        assert_eq!(failure.of_start().exit_code, 127);
    }
}
