//! `--log-driver` and `--log-opt`

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use bulkhead_types::parse_size;
use serde::{Deserialize, Serialize};

use crate::text::serde_by_text;
use crate::{Class, EngineError};

/// What becomes of a container's output.
///
/// Docker's `local` is read as `json-file`: it asks for a log on this machine that rotates, and
/// that is what `json-file` is here. Inspect says what is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogDriver {
    #[default]
    JsonFile,
    /// It is not kept.
    None,
}

impl FromStr for LogDriver {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self, EngineError> {
        match text {
            "" | "json-file" | "local" => Ok(Self::JsonFile),
            "none" => Ok(Self::None),
            // clients look for this sentence, to its end
            other => Err(EngineError::invalid(format!(
                "logger: no log driver named '{other}' is registered"
            ))),
        }
    }
}

impl fmt::Display for LogDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::JsonFile => "json-file",
            Self::None => "none",
        })
    }
}

serde_by_text!(LogDriver);

/// How a log rotates, and the options as they were given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct LogOptions {
    /// Bytes after which a new file is begun.
    max_size: u64,
    max_files: u32,
    given: BTreeMap<String, String>,
}

const MAX_SIZE: u64 = 10_000_000;
const FILES: u32 = 5;

/// Rotating renames every file, and the warden does nothing else meanwhile.
const MAX_FILES: u32 = 100;

impl Default for LogOptions {
    fn default() -> Self {
        Self { max_size: MAX_SIZE, max_files: FILES, given: BTreeMap::new() }
    }
}

impl LogOptions {
    /// # Errors
    /// Names every option that the driver does not have or that is not done, and wrong values.
    pub fn parse(driver: LogDriver, given: BTreeMap<String, String>) -> Result<Self, EngineError> {
        let mut options = Self::default();
        for (name, value) in &given {
            match (driver, name.as_str(), value.as_str()) {
                (LogDriver::JsonFile, "max-size", value) => options.max_size = size(value)?,
                (LogDriver::JsonFile, "max-file", value) => options.max_files = files(value)?,
                // What the log does anyway.
                (LogDriver::JsonFile, "compress", "false")
                | (LogDriver::JsonFile, "mode", "blocking") => {}
                (
                    LogDriver::JsonFile,
                    "compress" | "env" | "env-regex" | "labels" | "labels-regex" | "tag" | "mode"
                    | "max-buffer-size",
                    value,
                ) => {
                    return Err(EngineError::new(
                        Class::Unsupported,
                        format!(
                            "log opt '{name}={value}' is not supported by Bulkhead; leave it out"
                        ),
                    ));
                }
                _ => {
                    return Err(EngineError::invalid(format!(
                        "unknown log opt '{name}' for {driver} log driver"
                    )));
                }
            }
        }
        Ok(Self { given, ..options })
    }

    pub fn max_size(&self) -> u64 {
        self.max_size
    }

    pub fn max_files(&self) -> u32 {
        self.max_files
    }

    pub fn given(&self) -> &BTreeMap<String, String> {
        &self.given
    }
}

fn size(text: &str) -> Result<u64, EngineError> {
    match text {
        "-1" => Ok(u64::MAX),
        text => parse_size(text).map_err(|error| EngineError::invalid(error.to_string())),
    }
}

fn files(text: &str) -> Result<u32, EngineError> {
    match text.parse() {
        Ok(count @ 1..=MAX_FILES) => Ok(count),
        Ok(1..) => Err(EngineError::invalid(format!("max-file cannot be more than {MAX_FILES}"))),
        _ => Err(EngineError::invalid("max-file cannot be less than 1")),
    }
}

/// From a record. An engine of before this type took every name; those without a meaning had none
/// then either.
impl From<BTreeMap<String, String>> for LogOptions {
    fn from(given: BTreeMap<String, String>) -> Self {
        let value = |name: &str| given.get(name).map(String::as_str);
        Self {
            max_size: value("max-size").and_then(|text| size(text).ok()).unwrap_or(MAX_SIZE),
            max_files: value("max-file").and_then(|text| files(text).ok()).unwrap_or(FILES),
            given,
        }
    }
}

impl From<LogOptions> for BTreeMap<String, String> {
    fn from(options: LogOptions) -> Self {
        options.given
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[(&str, &str)]) -> Result<LogOptions, EngineError> {
        let given = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        LogOptions::parse(LogDriver::JsonFile, given.collect())
    }

    #[test]
    fn every_option_is_done_or_refused_by_name() {
        let options = parse(&[("max-size", "1m"), ("max-file", "3")]).unwrap();
        assert_eq!((options.max_size(), options.max_files()), (1 << 20, 3));
        assert_eq!(parse(&[("max-size", "-1")]).unwrap().max_size(), u64::MAX);
        assert_eq!(parse(&[]).unwrap(), LogOptions::default());
        for (name, value, why) in [
            ("bogus", "1", "unknown log opt 'bogus' for json-file log driver"),
            ("compress", "true", "'compress=true' is not supported"),
            ("mode", "non-blocking", "'mode=non-blocking' is not supported"),
            ("max-file", "0", "less than 1"),
            ("max-file", "101", "more than 100"),
            ("max-size", "x", "x"),
        ] {
            let error = parse(&[(name, value)]).unwrap_err().message;
            assert!(error.contains(why), "{error}");
        }
        let given = BTreeMap::from([("max-size".to_owned(), "1m".to_owned())]);
        assert!(LogOptions::parse(LogDriver::None, given).is_err());
    }

    #[test]
    fn a_record_of_before_is_read_whatever_it_holds() {
        let recorded = r#"{"bogus":"1","max-file":"2","max-size":"?"}"#;
        let options: LogOptions = serde_json::from_str(recorded).unwrap();
        assert_eq!((options.max_size(), options.max_files()), (MAX_SIZE, 2));
        assert_eq!(serde_json::to_string(&options).unwrap(), recorded);
        assert_eq!(serde_json::from_str::<LogDriver>("\"local\"").unwrap(), LogDriver::JsonFile);
    }
}
