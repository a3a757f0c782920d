//! The options of a driver, read one by one.

use std::collections::BTreeMap;

/// A driver that sends a log elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remote {
    Awslogs,
    Fluentd,
    Gelf,
    Journald,
    Syslog,
}

impl Remote {
    pub const ALL: [Self; 5] =
        [Self::Awslogs, Self::Fluentd, Self::Gelf, Self::Journald, Self::Syslog];

    pub fn name(self) -> &'static str {
        match self {
            Self::Awslogs => "awslogs",
            Self::Fluentd => "fluentd",
            Self::Gelf => "gelf",
            Self::Journald => "journald",
            Self::Syslog => "syslog",
        }
    }
}

/// Why an option cannot be: a sentence that names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// It is wrong, and Docker says so too.
    #[error("{0}")]
    Invalid(String),
    /// Docker has it, and it is not done here.
    #[error("{0}")]
    Unsupported(String),
}

/// The options of one driver, each taken out once it is understood.
#[derive(Debug)]
pub(crate) struct Own<'a> {
    remote: Remote,
    options: BTreeMap<&'a str, &'a str>,
}

impl<'a> Own<'a> {
    pub(crate) fn new(remote: Remote, options: BTreeMap<&'a str, &'a str>) -> Self {
        Self { remote, options }
    }

    /// One that nobody has understood.
    pub(crate) fn left(&self) -> Option<&'a str> {
        self.options.keys().next().copied()
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<&'a str> {
        self.options.remove(name)
    }

    /// Takes an option that `read` makes sense of.
    pub(crate) fn read<T>(
        &mut self,
        name: &str,
        what: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, OptionError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(OptionError::Invalid(format!(
                "invalid value {value:?} of log opt '{name}': {what}"
            ))),
        }
    }

    /// Takes an option that is true or false, in Go's words (strconv.ParseBool).
    pub(crate) fn flag(&mut self, name: &str) -> Result<Option<bool>, OptionError> {
        self.read(name, "it is true or false", |value| match value {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
            _ => None,
        })
    }

    /// Refuses by name what Docker has and is not done.
    pub(crate) fn refuse(&mut self, name: &str, instead: &str) -> Result<(), OptionError> {
        match self.take(name) {
            None => Ok(()),
            Some(_) => Err(OptionError::Unsupported(format!(
                "log opt '{name}' of the {} log driver is not supported by Bulkhead: {instead}",
                self.remote.name()
            ))),
        }
    }
}

/// A duration in Go's words (time.ParseDuration), as far as options of logs have them: `1.5s`, `500ms`,
/// `1m30s`.
pub(crate) fn duration(text: &str) -> Option<std::time::Duration> {
    let mut rest = text;
    let mut total = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|letter: char| letter.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        rest = &rest[end..];
        total += number * unit;
    }
    std::time::Duration::try_from_secs_f64(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        let milliseconds = |text: &str| duration(text).map(|duration| duration.as_millis());
        assert_eq!(milliseconds("1m1.5s"), Some(61_500));
        assert_eq!(milliseconds("250ms"), Some(250));
        assert_eq!((milliseconds("5"), milliseconds(""), milliseconds("1x")), (None, None, None));
    }
}
